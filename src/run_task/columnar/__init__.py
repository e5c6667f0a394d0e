"""Columns of Arrow as NumPy has them: what values they have, and which of them are none."""
