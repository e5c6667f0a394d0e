"""A pipeline that runs over history."""
