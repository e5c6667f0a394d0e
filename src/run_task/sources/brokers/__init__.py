"""Sources that read from brokers, and what they have in common."""
