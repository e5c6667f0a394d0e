"""Texts in other encodings than UTF-8, on their way to a reader of UTF-8."""

from __future__ import annotations

import codecs
from typing import Final

from run_task.errors import ConfigError
from run_task.sources._text_blocks import Stream

_NO_TEXT: Final = "run_task.sources.no_text"

# What is no text in its encoding is none in UTF-8 either, so that it is found where it is read.
codecs.register_error(_NO_TEXT, lambda error: ("\udcff", getattr(error, "end", 0)))


def check_encoding(encoding: object, where: str) -> str:
    """The name of an encoding, as Python has it.

    :raises ConfigError: if there is none of this name
    """
    try:
        "".encode(encoding)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] what is refused
        return codecs.lookup(encoding).name  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] as above
    except (LookupError, TypeError, ValueError):
        raise ConfigError(
            f"{where}: encoding={encoding!r}: there is none of this name; write one such as "
            f"'utf-8', 'cp1252' or 'utf-16'"
        ) from None


def check_line_feed(encoding: str, where: str) -> None:
    """See whether lines of a file that is followed can be told in an encoding.

    :raises ConfigError: if not
    """
    if b"\n".decode(encoding, "replace") != "\n":
        raise ConfigError(
            f"{where}: encoding={encoding!r}: follow= goes by line feeds, which are several bytes "
            f"or others in it: have the file written in UTF-8"
        )


class InUtf8:
    """A stream of text in any encoding as one in UTF-8.

    :param stream: the bytes
    :param encoding: their encoding
    """

    def __init__(self, stream: Stream, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(_NO_TEXT)
        self._left = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """At most so many bytes, and at least one; none at the end."""
        while not self._left and not self._ended:
            more = self._stream.read(size)
            self._ended = not more
            text = self._decoder.decode(more, final=self._ended)
            self._left = text.encode(errors="surrogateescape")
        head, self._left = self._left[:size], self._left[size:]
        return head
