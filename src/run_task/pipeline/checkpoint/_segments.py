"""What grows at its end, in parts: each checkpoint writes what has come since the one before.

As in a log-structured merge tree, a part that is no larger than what is to be written is written
again with it: so there are few parts, and a row is written a few times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

RowSegment: TypeAlias = tuple[str, int, int, int]
"""Rows of a part: its name, the number of its first row, and which numbers of it count: from one
to another."""


def carried(
    before: Sequence[RowSegment], first: int, same_until: float, stop: int
) -> tuple[list[RowSegment], int]:
    """Which rows stay in the parts that they are in.

    :param before: the parts that there are
    :param first: the number of the first row that counts
    :param same_until: before which number rows are what they were
    :param stop: the number behind the last row
    :return: these parts, and the number of the row from which on a new one is to be written; that
        is ``stop``, if none is
    """
    segments: list[RowSegment] = []
    for part, at, start, end in before:
        kept = max(start, first), min(end, int(min(same_until, stop)))
        if kept[0] < kept[1]:
            segments.append((part, at, *kept))
    begin = segments[-1][3] if segments else first
    if begin < stop:
        while segments and segments[-1][3] - segments[-1][2] <= stop - begin:
            begin = segments.pop()[2]
    return segments, begin
