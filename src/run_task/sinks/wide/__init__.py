"""Results as rows of typed columns, one a window and key, and back."""
