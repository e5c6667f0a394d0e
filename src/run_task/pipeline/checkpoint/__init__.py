"""Checkpoints: what a pipeline goes on from after any end."""
