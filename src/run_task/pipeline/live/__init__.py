"""A pipeline that runs live."""
