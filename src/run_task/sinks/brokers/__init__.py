"""Sinks that publish to brokers, and what they have in common."""
