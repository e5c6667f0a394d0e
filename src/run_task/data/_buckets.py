"""Which part of the keys a key belongs to."""

from __future__ import annotations

from typing import Final
from zlib import crc32

from run_task.errors import ConfigError

BUCKETS: Final = 1024
"""How many buckets there are."""


def bucket_of(key: str | int) -> int:
    """The bucket that a key belongs to: the CRC-32 (IEEE 802.3) of the key modulo 1024.

    Of a text, the CRC is that of its UTF-8; of an int, that of its eight bytes, two's complement,
    the lowest first. So it is the same in every process, on every machine, and in every version of
    this library: what is kept by bucket stays where it is.

    :param key: a text, or an int of 64 bits
    :return: from 0 to 1023
    :raises ConfigError: if it is neither
    """
    if isinstance(key, str):
        return crc32(key.encode("utf-8", "surrogatepass")) % BUCKETS
    try:
        return crc32(int(key).to_bytes(8, "little", signed=key < 2**63)) % BUCKETS
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{key!r} is no key: a key is a text, or an int of 64 bits") from None
