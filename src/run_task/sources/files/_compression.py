"""Bytes out of what is compressed, which is known by how it begins and not by its name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from typing import Any, Final, Protocol

from run_task._extras import need

_MAGIC: Final = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
_BZ2_BLOCKS: Final = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
"""What follows ``BZh`` and a digit: a text may begin with those."""

TELLING_BYTES: Final = 10
"""How many bytes tell, at most, how a file is compressed."""

_XZ_BYTES: Final = 1 << 14
_XZ_MEMORY: Final = 1 << 29
"""How many bytes of memory xz may take; at its highest preset it takes an eighth of that."""

_ARROW_BYTES: Final = 1 << 14
"""How much is asked of Arrow at a time: where an archive ends too early, that much is lost."""


_OTHERS: Final = {
    b"PAR1\x15": "it is a Parquet file: read it by a ParquetFile",
    b"ARROW1\0": "it is an Arrow file: read it by an ArrowFile",
    b"PK\x03\x04": "it is a zip archive, as spreadsheets are, too: unpack it, or save it as CSV",
    b"SQLite for": "it is a database of SQLite: query it, and give the source the rows",
}
"""What a file is that begins so, if no source of files that it was given to can read it."""


class Readable(Protocol):
    """Bytes that come one after the other."""

    def read(self, size: int, /) -> bytes:
        """At most so many of the next bytes; none: there are no more."""
        ...

    def close(self) -> object:
        """Let go of it."""
        ...


class _Joined:
    """What was read already, and then the rest."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        end = len(self._head) if size < 0 else size
        given, self._head = self._head[:end], self._head[end:]
        return given

    def close(self) -> None:
        self._rest.close()


class _Unpacked:
    """What an archive of gzip or bz2 holds, also if several are one after the other.

    :param file: the archive
    :param raw: where its bytes come from
    """

    def __init__(self, file: gzip.GzipFile | bz2.BZ2File, raw: Readable) -> None:
        self._file = file
        self._raw = raw

    def read(self, size: int, /) -> bytes:
        return self._file.read1(size)  # what there is before a fault comes before it is raised

    def close(self) -> None:
        self._file.close()
        self._raw.close()


class _UnpackedXz:
    """What an archive of xz holds, also if several are one after the other.

    By :class:`lzma.LZMAFile` an archive of few bytes may ask for gigabytes.
    """

    def __init__(self, raw: Readable) -> None:
        self._raw = raw
        self._archive = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
        self.close = raw.close

    def read(self, size: int, /) -> bytes:
        while True:
            if self._archive.eof:
                rest = self._archive.unused_data.lstrip(b"\0") or self._next_archive()
                if not rest:
                    return b""
                self._archive = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
                block = self._archive.decompress(rest, size)
            else:
                more = self._raw.read(_XZ_BYTES) if self._archive.needs_input else b""
                if self._archive.needs_input and not more:
                    raise EOFError(
                        "Compressed file ended before the end-of-stream marker was reached"
                    )
                block = self._archive.decompress(more, size)
            if block:
                return block

    def _next_archive(self) -> bytes:
        """The beginning of what comes after an archive and the zeros that may follow it."""
        while more := self._raw.read(_XZ_BYTES):
            if rest := more.lstrip(b"\0"):
                return rest
        return b""


class _UnpackedByArrow:
    """What an archive holds that Arrow unpacks."""

    def __init__(self, raw: Readable, codec: str) -> None:
        pa = need("pyarrow", "arrow")
        self._file: Any = pa.CompressedInputStream(pa.PythonFile(_File(raw), mode="r"), codec)
        self._raw = raw

    def read(self, size: int, /) -> bytes:
        try:
            block: bytes = self._file.read(min(size, _ARROW_BYTES))
        except ValueError as error:  # so is pyarrow's ArrowInvalid
            raise OSError(str(error)) from error
        return block

    def close(self) -> None:
        self._file.close()
        self._raw.close()


class _File:
    """What Arrow asks of a file."""

    closed = False

    def __init__(self, raw: Readable) -> None:
        self.read = raw.read

    def close(self) -> None:
        """It is closed by whoever opened it."""


def compression_of(head: bytes) -> str | None:
    """How what begins like this is compressed; None: it is not.

    :param head: the first bytes, :data:`TELLING_BYTES` or fewer if there are no more
    """
    for magic, codec in _MAGIC.items():
        if head.startswith(magic):
            return codec if codec != "bz2" or head[4:10] in _BZ2_BLOCKS else None
    return None


def other_format(head: bytes) -> str | None:
    """What something is that begins like this and cannot be read, and what to do; None: there is
    no telling."""
    return next((what for magic, what in _OTHERS.items() if head.startswith(magic)), None)


def head_of(raw: Readable) -> bytes:
    """As many bytes as tell how something is compressed.

    No more than that is waited for: of a line that is shorter, all else may come much later.
    """
    head = b""
    while len(head) < TELLING_BYTES and any(
        magic.startswith(head[: len(magic)]) and (len(head) < len(magic) or codec == "bz2")
        for magic, codec in _MAGIC.items()
    ):
        if not (more := raw.read(TELLING_BYTES - len(head))):
            break
        head += more
    return head


def decompressed(raw: Readable) -> tuple[Readable, str | None]:
    """What is in an archive, or the bytes as they are where it is none.

    :param raw: where the bytes come from
    :return: what they hold, and how it is compressed
    """
    head = head_of(raw)
    joined: Any = _Joined(head, raw)
    match codec := compression_of(head):
        case None:
            return joined, None
        case "gzip":
            return _Unpacked(gzip.GzipFile(fileobj=joined, mode="rb"), raw), codec
        case "bz2":
            return _Unpacked(bz2.BZ2File(joined), raw), codec
        case "xz":
            return _UnpackedXz(joined), codec
        case _:
            return _UnpackedByArrow(joined, codec), codec


FAULTS: Final = (OSError, EOFError, lzma.LZMAError, zlib.error, MemoryError)
"""What reading raises where bytes cannot be had, or an archive is broken or ends too early."""
