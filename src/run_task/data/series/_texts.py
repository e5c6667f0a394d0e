"""The texts of a column: each kept once, and a number of four bytes for each row.

A row has the *code* of its text, which is the position of that text among all that the column has
had. A text that is new is put behind the others, so codes that were given out keep their meaning,
and readers, who know only codes of rows that are there, need no lock.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task.data._block import Allocate, Block
from run_task.data._buckets import bucket_of
from run_task.data.series._column_types import Array, InvalidValue, exact_text

CODES: Final = np.dtype(np.int32)
"""What codes are stored as."""

NO_CODE: Final = -1
"""In the place of a code: there is no text."""

_FEW: Final = 256
"""So many texts that no row has any more may be kept, however few are in use."""

_SMALLEST_SEGMENT: Final = 1 << 16
"""How many bytes of texts are shared with other processes at least."""

_LENGTH: Final = 4
"""How many bytes tell how long a text is."""


TextBlocks: TypeAlias = tuple[tuple[Block, int], ...]
"""Blocks of memory that hold texts, and how many bytes of each are written to."""


class EncodedTexts(NamedTuple):
    """The texts of a column, as codes and what they stand for.

    ``texts[codes]`` are the texts of the rows.
    """

    codes: NDArray[np.int32]
    """For each row, the position of its text in ``texts``; -1 where there is none, as ``asof`` may
    find none."""

    texts: NDArray[np.object_]
    """The texts, each once, in no order; others may be among them than the rows have."""

    def compact(self) -> EncodedTexts:
        """The same with those texts only that rows have."""
        # One more than there are texts: it stands for those without.
        used = np.zeros(len(self.texts) + 1, np.bool_)
        used[self.codes] = True
        used[NO_CODE] = False
        positions = np.cumsum(used, dtype=np.int32) - np.int32(1)
        positions[NO_CODE] = NO_CODE
        return EncodedTexts(positions[self.codes], self.texts[used[:-1]])


class _Codes(dict[str, int]):
    """The code of each text that is admitted; another is admitted when it is looked up, while there
    is room."""

    __slots__ = ("_texts",)

    def __init__(self, texts: Texts) -> None:
        super().__init__()
        self._texts = weakref.proxy(texts)

    def __missing__(self, value: object) -> int:
        text = exact_text(value)
        code = self.get(text)
        return self._texts.admitted(text) if code is None else code


class Texts:
    """All texts that a column has had since its codes were given out anew.

    There may be a limit to how many are *admitted*, which those are that have to be told apart from
    the others: a dictionary of them alone is all that a row is looked up in.

    One writer at a time; readers need no lock.

    :param texts: those to begin with, each once
    """

    __slots__ = (
        "__weakref__",
        "_buckets",
        "_codes",
        "_count",
        "_kept",
        "_most",
        "_origin",
        "_ranking",
        "_revoked",
        "_segments",
        "_shared",
        "_texts",
    )

    def __init__(self, texts: Sequence[str] = ()) -> None:
        # The last is always None, which is what NO_CODE finds there.
        self._texts: NDArray[np.object_] = np.empty(max(len(texts) + 1, 16), np.object_)
        self._texts[: len(texts)] = texts
        self._codes = _Codes(self)
        self._codes.update(zip(texts, range(len(texts))))
        self._revoked: dict[str, int] = {}  # the codes of texts that are not admitted
        self._most = sys.maxsize  # how many may be admitted
        self._kept = self._count = len(texts)
        self._ranking: tuple[NDArray[np.int32], Sequence[str]] | None = None
        self._buckets: NDArray[np.uint16] = np.empty(0, np.uint16)
        self._segments: list[_Segment] = []
        self._shared = 0  # how many of the texts are in them
        self._origin: TextBlocks | None = None  # where they were read from

    def __len__(self) -> int:
        return self._count

    def text(self, code: int) -> str:
        """The text of a code that was given out."""
        text: str = self._texts[code]
        return text

    def code(self, value: Any) -> int:
        """The code of a text, which is admitted.

        :raises InvalidValue: if it is no text, or there is no room for it
        """
        try:
            return self._codes[value]
        except TypeError:  # it has no hash
            return self._codes[exact_text(value)]

    def encode(self, texts: Array) -> NDArray[np.int32]:
        """The codes of many texts, each of which is a ``str``; they are admitted as far as there is
        room."""
        try:
            return np.fromiter(map(self._codes.__getitem__, texts), CODES, len(texts))
        except InvalidValue:  # there is no more room
            return np.fromiter(map(self._any_code, texts), CODES, len(texts))

    def _any_code(self, text: str) -> int:
        code = self._codes.get(text)
        if code is not None:
            return code
        if len(self._codes) < self._most:
            return self._codes[text]
        code = self._revoked.get(text)
        if code is None:
            code = self._revoked[text] = self._new_code(text)
        return code

    # Which of them are admitted

    def limit(self, most: int, codes: Iterable[int]) -> Mapping[str, int]:
        """Admit some texts and no others, and up to so many from now on.

        :param most: how many may be admitted
        :param codes: those of the texts that are admitted now
        :return: the codes of those that are admitted, whatever becomes of them: to look one up that
            is not admits it, or raises InvalidValue if it is no text, or there is no room
        """
        self._most = most
        self.admit_only(codes)
        return self._codes

    def lift(self) -> None:
        """Admit all there are from now on."""
        self._most = sys.maxsize

    def admitted(self, text: str) -> int:
        """The code of a text that was not admitted, and is from now on.

        :raises InvalidValue: if there is no room for it
        """
        if len(self._codes) >= self._most:
            raise InvalidValue("there is no room for another")
        code = self._revoked.get(text)
        if code is None:
            code = self._new_code(text)
        # Were it broken off in between, it would be found all the same, now as below.
        self._codes[text] = code
        self._revoked.pop(text, None)
        return code

    def revoke(self, code: int) -> None:
        """Let the text of a code be admitted no longer."""
        text = self.text(code)
        if text in self._codes:
            self._revoked[text] = code
            del self._codes[text]

    def admit_only(self, codes: Iterable[int]) -> None:
        """Let the texts of these codes be admitted, and no others."""
        kept = set(codes)
        for code in [code for code in self._codes.values() if code not in kept]:
            self.revoke(code)

    def _new_code(self, text: str) -> int:
        texts, code = self._texts, self._count
        # In this order: whoever finds the code finds the text.
        if code == len(texts) - 1:
            more: NDArray[np.object_] = np.empty(2 * len(texts), np.object_)
            more[:code] = texts[:code]
            self._texts = texts = more
        texts[code] = text
        self._count = code + 1
        return code

    def decode(self, codes: NDArray[np.int32]) -> NDArray[np.object_]:
        """The texts of codes that were given out, read-only."""
        texts: NDArray[np.object_] = self._texts[codes]
        texts.flags.writeable = False
        return texts

    def encoded(self, codes: NDArray[np.int32]) -> EncodedTexts:
        """Codes that were given out, and what they stand for."""
        texts = self._texts[: len(self)]
        texts.flags.writeable = False
        return EncodedTexts(codes, texts)

    def ranking(self) -> tuple[NDArray[np.int32], Sequence[str]]:
        """The rank of each text among all in sorted order, by code, and the texts in that order."""
        ranking = self._ranking
        count = len(self)
        if ranking is None or len(ranking[1]) != count:
            texts: list[str] = self._texts[:count].tolist()
            # Those of before come first, and are in order: to sort most of it anew takes no more
            # than to look at it.
            before: list[int] = [] if ranking is None else _inverse(ranking[0]).tolist()
            order = sorted([*before, *range(len(before), count)], key=texts.__getitem__)
            ranks = _inverse(np.array(order, CODES))
            self._ranking = ranking = ranks, [texts[code] for code in order]
        return ranking

    def buckets(self) -> NDArray[np.uint16]:
        """The bucket of each text, by code."""
        buckets, count = self._buckets, len(self)
        known = len(buckets)
        if known < count:
            new: list[int] = [bucket_of(text) for text in self._texts[known:count].tolist()]
            self._buckets = buckets = np.concatenate([buckets, np.array(new, np.uint16)])
        return buckets

    def is_stale(self) -> bool:
        """Whether so many texts have come that it pays to look which are still in use."""
        return len(self) > 2 * self._kept + _FEW

    def compacted(self, codes: NDArray[np.int32]) -> tuple[Texts, NDArray[np.int32]]:
        """Those texts only that rows have, and the new codes of these rows.

        :param codes: of all rows that there are
        """
        again = self.encoded(codes).compact()
        return Texts(again.texts.tolist()), again.codes

    def shared(self, allocate: Allocate) -> TextBlocks:
        """The texts in memory that other processes map: blocks, and how many bytes of each are
        written to. What was shared before stays as it was; :func:`texts_at` reads it.

        :param allocate: makes a block of so many bytes
        """
        with _SHARING:
            if self._origin is not None:
                return self._origin
            for text in self._texts[self._shared : len(self)].tolist():
                data = text.encode("utf-8", "surrogatepass")
                if not self._segments or not self._segments[-1].has_room(data):
                    before = self._segments[-1].written if self._segments else 0
                    room = max(_SMALLEST_SEGMENT, 2 * before, _LENGTH + len(data))
                    self._segments.append(_Segment(allocate(room)))
                self._segments[-1].write(data)
                self._shared += 1
            return tuple((segment.block, segment.written) for segment in self._segments)

    def read_from(self, origin: TextBlocks) -> None:
        """Note where they were read from: whoever they are sent to can read them there, too."""
        self._origin = origin


def _inverse(order: NDArray[np.int32]) -> NDArray[np.int32]:
    """Where each position stands in an order of all."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order), dtype=CODES)
    return places


_SHARING: Final = threading.Lock()


class _Segment:
    """A block of memory that texts are written to, one behind the other: the length of each, and
    its UTF-8."""

    __slots__ = ("block", "written")

    def __init__(self, block: Block) -> None:
        self.block: Block = block
        self.written: int = 0

    def has_room(self, data: bytes) -> bool:
        return self.written + _LENGTH + len(data) <= len(self.block.memory)

    def write(self, data: bytes) -> None:
        memory, at = self.block.memory, self.written
        memory[at : at + _LENGTH] = len(data).to_bytes(_LENGTH, "little")
        memory[at + _LENGTH : at + _LENGTH + len(data)] = data
        self.written = at + _LENGTH + len(data)


class _Reading:
    """Texts of another process, as far as they have been read."""

    __slots__ = ("__weakref__", "read", "texts")

    def __init__(self) -> None:
        self.texts = Texts()
        self.read: dict[int, int] = {}  # how many bytes of each block, by its place


_readings: Final[weakref.WeakKeyDictionary[Block, _Reading]] = weakref.WeakKeyDictionary()


def texts_at(segments: TextBlocks) -> Texts:
    """The texts that another process has shared. What was read before is not read again.

    :param segments: as :meth:`Texts.shared` gave them
    """
    if not segments:
        return Texts()
    with _SHARING:
        first = segments[0][0]
        reading = _readings.get(first)
        if reading is None:
            reading = _readings[first] = _Reading()
        for place, (block, written) in enumerate(segments):
            at, memory = reading.read.get(place, 0), block.memory
            while at < written:
                length = int.from_bytes(memory[at : at + _LENGTH], "little")
                at += _LENGTH
                text = bytes(memory[at : at + length]).decode("utf-8", "surrogatepass")
                reading.texts.code(text)
                at += length
            reading.read[place] = at
        reading.texts.read_from(segments)
        return reading.texts
