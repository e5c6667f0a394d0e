"""How fast and how punctual run-task is, measured beside a bare loop and beside its peers."""
