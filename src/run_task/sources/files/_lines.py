"""The bytes of a file by whole lines, up to where they cannot be had."""

from __future__ import annotations

import threading
from typing import Final

from run_task.sources.files._compression import FAULTS, Readable, decompressed

_READ_BYTES: Final = 1 << 20


class Stopped(Exception):
    """Nothing comes next, and what is half there is no line: raised to whoever waits for it."""


class WholeLines:
    """The bytes of a file, decompressed, in blocks that end where a line does.

    Where they cannot be had any more, as in an archive that ends too early, the blocks end before
    the line that is not whole, and :attr:`failure` says why: so all rows before come first, and no
    half of a line is taken for one.

    So it is where a reading is stopped that waits for more, or the file is emptied: what is
    half-written is no line yet.

    A block ends within a line only if the line is longer than the block.

    :param raw: the bytes as they stand
    :param plain: whether they are not compressed, however they begin
    """

    closed: bool = False
    """What a file has."""

    def __init__(self, raw: Readable, *, plain: bool = False) -> None:
        self.failure: str | None = None
        """Why there are no more, if they do not end there."""

        self._mutex = threading.Lock()  # Arrow reads ahead, in a thread of its own
        self._held = b""
        self._ended = False
        self._whole = True  # the last line is one, also without a line feed
        self._raw = raw
        self._file: Readable | None = raw if plain else None
        self.codec: str | None = None
        """How they are compressed, once the first are read; None: they are not."""

    def read(self, size: int = _READ_BYTES) -> bytes:
        """The next block.

        :param size: how many bytes it has at most
        :return: the bytes; none: there are no more
        """
        with self._mutex:
            pieces = [self._held]
            count, whole = len(self._held), b"\n" in self._held
            while not self._ended and count < size and not whole:
                pieces.append(self._next(size - count))
                count += len(pieces[-1])
                whole = b"\n" in pieces[-1]
            *before, last = pieces
            start = count - len(last)
            end = min(size, count)
            if not self._ended or not self._whole or count > size:
                # All but the last piece have no line feed.
                feed = last.rfind(b"\n", 0, size - start)
                end = start + feed + 1 if feed >= 0 else end if self._whole else 0
            if not end:
                self._held = b"".join(pieces)
                return b""
            self._held = last[end - start :]
            # One copy: to join the pieces and then cut them would be two more of nearly everything.
            return b"".join((*before, memoryview(last)[: end - start]))

    def _next(self, size: int) -> bytes:
        """Some of the bytes that come next; none: there are no more."""
        try:
            if self._file is None:
                self._file, self.codec = decompressed(self._raw)
            block = self._file.read(size)
        except Stopped:
            block, self._whole = b"", False
        except FAULTS as error:
            block, self._whole = b"", False
            reason = str(error) or "there is not enough memory"
            self.failure = reason if self.codec is None else f"of its {self.codec}: {reason}"
        self._ended = not block
        return block

    def close(self) -> None:
        """Let go of the file; a read that is under way is waited for."""
        with self._mutex:
            self._ended, self._held, self.closed = True, b"", True
            (self._file or self._raw).close()
