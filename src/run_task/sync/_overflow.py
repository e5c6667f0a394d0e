"""What a full channel does with another item."""

from __future__ import annotations

import enum


class Overflow(enum.Enum):
    """What sending to a full channel does."""

    BLOCK = "block"
    """Wait for room. Nothing is lost, and a slow receiver slows the sender."""

    DROP_OLDEST = "drop_oldest"
    """Drop the item that has waited longest, and count it."""

    DROP_NEWEST = "drop_newest"
    """Drop the item that is being sent, and count it."""
