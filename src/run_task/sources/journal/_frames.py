"""Frames: pieces of a file, each with its length and checksums, so that what a crash or a disk has
done to it is seen."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from run_task.errors import SourceError

MAGIC: Final = b"run-task journal 1\n"
"""How each segment begins."""

_MARK: Final = b"\xf4frame\r\n"
"""How each frame begins: it is looked for behind one that is damaged. No text in UTF-8 has it."""

_HEADER: Final = struct.Struct("<8sIII")
"""The mark, how many bytes there are, their CRC-32, and that of what stands before it here."""

_LOOKED_AT: Final = 1 << 20
"""How many bytes are looked through at a time."""


class CheckedFrame(NamedTuple):
    """A frame as it was read."""

    offset: int
    """Where it begins in its file."""
    content: bytes
    end: int
    """Where what comes next begins."""


def framed(content: bytes) -> bytes:
    """Bytes as a frame."""
    head = _HEADER.pack(_MARK, len(content), zlib.crc32(content), 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "little") + content


class Torn(Exception):
    """A file ends with a frame that is not whole, as after a crash.

    :param offset: where that begins
    """

    def __init__(self, offset: int) -> None:
        super().__init__(f"what begins at byte {offset} is not whole")
        self.offset = offset


def frames(file: BinaryIO, path: Path, offset: int) -> Iterator[CheckedFrame]:
    """The frames of a file.

    :param file: the file
    :param path: what it is called, for messages
    :param offset: where its first frame begins
    :raises Torn: in the end, if what stands there last is not whole
    :raises SourceError: if one is damaged that others come after
    """
    file.seek(offset)
    while True:
        header = file.read(_HEADER.size)
        if not header:
            return
        size = _size(header)
        if size is None:
            raise _judged(file, path, offset, offset + 1)
        content = file.read(size)
        end = offset + len(header) + size
        if len(content) < size or zlib.crc32(content) != _crc(header):
            raise _judged(file, path, offset, offset + 1 if len(content) < size else end)
        yield CheckedFrame(offset, content, end)
        offset = end


def _size(header: bytes) -> int | None:
    """How many bytes a frame has, if that is the header of one."""
    if len(header) < _HEADER.size or not header.startswith(_MARK):
        return None
    _, size, _, check = _HEADER.unpack(header)
    return int(size) if zlib.crc32(header[:-4]) == check else None


def _crc(header: bytes) -> int:
    return int(_HEADER.unpack(header)[2])


def _judged(file: BinaryIO, path: Path, offset: int, start: int) -> Torn | SourceError:
    """What to raise where a frame is not whole: it is torn if none comes after it."""
    behind = _next_header(file, start)
    if behind is None:
        return Torn(offset)
    return SourceError(
        str(path),
        None,
        None,
        f"it is damaged from byte {offset} on, and goes on at byte {behind}: rows in between are "
        f"gone. Restore the file from a copy, or move it and all segments before it elsewhere, to "
        f"go on with those after it",
    )


def _next_header(file: BinaryIO, start: int) -> int | None:
    """Where the next whole header stands; None: nowhere."""
    overlap = _HEADER.size - 1
    while True:
        file.seek(start)
        block = file.read(_LOOKED_AT)
        at = block.find(_MARK)
        while at >= 0:
            header = block[at : at + _HEADER.size]
            if len(header) < _HEADER.size:
                break  # the next block begins before it
            if _size(header) is not None:
                return start + at
            at = block.find(_MARK, at + 1)
        if len(block) < _LOOKED_AT:
            return None
        start += _LOOKED_AT - overlap
