"""The body of a request: read within limits, decompressed within limits, and taken apart."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import Any, Final

from run_task._extras import need
from run_task.errors import escaped

_GZIP: Final = 31
"""The window of zlib's for gzip."""

JSON: Final = ("application/json",)
JSON_LINES: Final = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")


class Refused(Exception):
    """Why a request as a whole is refused.

    :param status: the status to answer with
    :param reason: what is wrong, and what to do
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = escaped(reason)


class Body:
    """Takes a body as it comes.

    :param encoding: how it is compressed, as its header has it
    :param most: how many bytes it may have at most, also decompressed
    :raises Refused: if it is compressed in another way than by gzip
    """

    def __init__(self, encoding: str, most: int) -> None:
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"Content-Encoding {encoding!r}: a body is compressed by gzip, or not at all",
            )
        self._most = most
        self._read = 0
        self._found = bytearray()
        self._gzip = zlib.decompressobj(_GZIP) if encoding.endswith("gzip") else None

    async def read(self, chunks: AsyncIterator[bytes]) -> bytes:
        """The whole body.

        :raises Refused: if it is too long, or no gzip where it should be
        """
        async for chunk in chunks:
            self._read += len(chunk)
            if self._read > self._most:
                raise self._too_long()
            if self._gzip is None:
                self._found += chunk
            else:
                self._decompress(chunk)
        if self._gzip is not None and not self._gzip.eof:
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is cut: its gzip has no end")
        return bytes(self._found)

    def _decompress(self, data: bytes) -> None:
        assert self._gzip is not None
        try:
            while data:
                if self._gzip.eof:  # what comes now is another one
                    self._gzip = zlib.decompressobj(_GZIP)
                # A byte more than there may be shows that there are too many.
                room = self._most + 1 - len(self._found)
                self._found += self._gzip.decompress(data, room)
                if len(self._found) > self._most:
                    raise self._too_long()
                data = self._gzip.unconsumed_tail or self._gzip.unused_data
        except zlib.error as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"the body is no gzip: {error}") from None

    def _too_long(self) -> Refused:
        return Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body has more than {self._most:,} bytes, also decompressed: send fewer rows at a "
            f"time",
        )


def objects(body: bytes, kind: str) -> Iterator[Any]:
    """What the rows of a body are: whatever JSON has, or an exception that says why it is none.

    :param body: the body, decompressed
    :param kind: its type, as the header has it
    :raises Refused: if it has another type, or the whole body is no JSON
    """
    kind, _, parameters = kind.partition(";")
    kind = kind.strip().lower()
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if charset not in ("", "utf-8", "utf8"):
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"charset {charset!r}: it is UTF-8")
    decode = need("msgspec", "http").json.decode
    if kind in JSON_LINES:
        return (_decoded(decode, line) for line in body.split(b"\n") if line.strip())
    if kind not in JSON:
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {kind!r}: send application/json, an object or an array of objects, or "
            f"application/x-ndjson, an object a line",
        )
    found = _decoded(decode, body)
    if isinstance(found, ValueError):
        raise Refused(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {found}")
    return iter(found if type(found) is list else [found])  # pyright: ignore[reportUnknownArgumentType] it is JSON


def _decoded(decode: Any, text: bytes) -> Any:
    try:
        return decode(text)
    except RecursionError:
        return ValueError("it is nested too deep")
    except ValueError as error:  # also msgspec's own, and of what is no UTF-8
        return ValueError(str(error))
