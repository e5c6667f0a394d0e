"""How Arrow's threads share the bytes of one block."""

from __future__ import annotations

from typing import Final

from run_task._extras import need

PART_BYTES: Final = 1 << 18
"""How many bytes are worth a thread."""


def part_bytes(size: int) -> int | None:
    """How many bytes of a block each of Arrow's threads is to read at a time.

    :param size: how many the block has
    :return: the number; None: one thread is to read all of them
    """
    part: int = max(-(-size // need("pyarrow", "arrow").cpu_count()), PART_BYTES)
    return part if part < size else None
