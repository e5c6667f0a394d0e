"""Which part of the keys a key belongs to."""

from __future__ import annotations

from functools import cache
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

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


def part_of(bucket: int, count: int) -> int:
    """The part that a bucket belongs to, where all are dealt out to parts in turn.

    Not by ranges: the CRCs of keys that are numbered differ in their low bits before they do in
    their high ones, so that twelve such keys may well all lie in one half.

    :param bucket: from 0 to 1023
    :param count: how many parts there are; of more than 1024 some are empty
    :return: from 0 to ``count - 1``
    """
    return bucket % count


def parts_of(buckets: NDArray[np.uint16], count: int) -> NDArray[np.uint16]:
    """The part that each of many buckets belongs to: as :func:`part_of`."""
    # No bucket is changed by a count that does not fit in 16 bits, nor by one that just does.
    parts: NDArray[np.uint16] = buckets % np.uint16(min(count, BUCKETS))
    return parts


def buckets_of_ints(keys: NDArray[Any]) -> NDArray[np.uint16]:
    """The bucket of each of many ints: as :func:`bucket_of`, much faster.

    :param keys: ints of any size, with sign or without
    """
    wide = keys.astype("<u8" if keys.dtype.kind == "u" else "<i8")
    octets = wide.view(np.uint8).reshape(len(keys), _BYTES)
    largest = int(wide.view("<u8").max(initial=0))
    buckets = np.full(len(keys), crc32(bytes(_BYTES)) % BUCKETS, np.uint16)
    # A CRC of so many bytes is the exclusive or of what each byte makes of it on its own.
    # Zero makes nothing of it, which the high bytes of most keys are.
    for place, table in zip(range(-(-largest.bit_length() // 8)), _tables()):
        buckets ^= table[octets[:, place]]
    return buckets


_BYTES: Final = 8


@cache
def _tables() -> NDArray[np.uint16]:
    """How each value of each byte of an int changes the bucket of zero."""
    zero = crc32(bytes(_BYTES))
    tables = [
        [(crc32((value << 8 * place).to_bytes(_BYTES, "little")) ^ zero) for value in range(256)]
        for place in range(_BYTES)
    ]
    return (np.array(tables, np.uint32) % BUCKETS).astype(np.uint16)
