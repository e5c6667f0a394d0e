"""What the files of a sink hold, as far as it is remembered, and where windows stand in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

from run_task.errors import SinkError
from run_task.sinks._protocol import Row
from run_task.sinks._record import StageKey, WindowKey
from run_task.sinks.files._rotation import RotatedFile
from run_task.time._interval import TimeUnit


class StoredWindow(NamedTuple):
    """A window in a file, and where it stands: from byte ``begin`` to byte ``end``."""

    begin: int
    end: int
    key: WindowKey
    unit: TimeUnit | None
    rows: Sequence[Row]


def begins_alike(text: bytes, other: bytes) -> bool:
    """Whether one of two texts is the beginning of the other."""
    return text.startswith(other) or other.startswith(text)


def broken(path: Path, line: int | None, begin: int, reason: str) -> SinkError:
    """Why a file cannot be gone on with.

    :param line: in which line, counted from 1; None: nobody knows
    :param begin: at which byte
    """
    where = f"line {line}" if line is not None else f"byte {begin}"
    return SinkError(
        f"{path}, {where}: {reason}; what follows it would be lost: repair or remove it"
    )


class Inventory:
    """What is in a file that grows, and in those that were put aside.

    :param rotated: the files that were put aside, oldest first
    :param own: the number by which the file itself is put aside next
    """

    def __init__(self, rotated: Iterable[RotatedFile] = (), own: int = 1) -> None:
        self.rotated = list(rotated)
        self.own = own
        self.period: int | None = None
        """The latest interval of rotation by time that the file itself has a window of."""
        self.superseded = False
        """Whether a window may be there twice."""
        self._units: dict[tuple[str, str], TimeUnit | None] = {}
        self._latest: dict[StageKey, tuple[int, int]] = {}
        """The last end of a window, and the number of the file where it stands."""

    def notice(self, key: WindowKey, number: int, unit: TimeUnit | None) -> None:
        """Remember a window that comes after all others.

        :param number: the file in which it is
        :param unit: the unit of its times
        """
        self._units[key[:2]] = unit
        known = self._latest.get(key.stage_key)
        if known is None or key.end > known[0]:
            self._latest[key.stage_key] = key.end, number
            return
        self.superseded = True
        self.found_at(key, number)

    def found_at(self, key: WindowKey, number: int) -> None:
        """Remember in which file a window is now."""
        if self._latest[key.stage_key][0] == key.end:
            self._latest[key.stage_key] = key.end, number

    def last(self, pipeline: str, stage: str) -> int | None:
        """The last end of a window of a stage."""
        ends = [end for of, (end, _) in self._latest.items() if of[:2] == (pipeline, stage)]
        return max(ends, default=None)

    def unit(self, pipeline: str, stage: str) -> TimeUnit | None:
        """The unit of the window of a stage that came last."""
        return self._units.get((pipeline, stage))

    def last_in(self, number: int) -> dict[StageKey, int]:
        """The last ends of windows that stand in a file, and in none after it."""
        return {key: end for key, (end, at) in self._latest.items() if at == number}


class Extent(NamedTuple):
    """A part of a file.

    :param path: the file
    :param begin: where the part begins
    :param end: where it ends
    :param opened: opens it
    """

    path: Path
    begin: int
    end: int
    opened: Callable[[], AbstractContextManager[BinaryIO]]


class WindowPlace(NamedTuple):
    """Where a window stands that may be there several times.

    :param first: the number of the extent where it stood first, and is to stand
    :param at: the number of that where it is as it was written last
    :param begin: where, in that
    :param end: where it ends
    :param is_gone: whether it tells that the window is there no more
    """

    first: int
    at: int
    begin: int
    end: int
    is_gone: bool


Reading = Callable[[BinaryIO, int, int, Path], Iterator[StoredWindow]]
"""Reads a part of a file."""


def all_of(extents: Iterable[Extent], read: Reading) -> Iterator[StoredWindow]:
    """The windows as they stand there."""
    for extent in extents:
        with extent.opened() as stream:
            stream.seek(extent.begin)
            yield from read(stream, extent.begin, extent.end, extent.path)


def places_in(extents: Sequence[Extent], read: Reading) -> dict[WindowKey, WindowPlace]:
    """Where each window stands as it was written last, in the order of where it stood first."""
    places: dict[WindowKey, WindowPlace] = {}
    for number, extent in enumerate(extents):
        for found in all_of([extent], read):
            known = places.get(found.key)
            first = number if known is None else known.first
            places[found.key] = WindowPlace(
                *(first, number, found.begin, found.end), is_gone=not found.rows
            )
    return places


def newest_of(extents: Sequence[Extent], read: Reading) -> Iterator[StoredWindow]:
    """The windows without those that were superseded, each where it stood first."""
    for at, places in groupby(places_in(extents, read).values(), lambda place: place.at):
        with extents[at].opened() as stream:
            for place in places:
                stream.seek(place.begin)
                yield from read(stream, place.begin, place.end, extents[at].path)


def bytes_at(places: Iterable[WindowPlace], extents: Sequence[Extent]) -> Iterator[bytes]:
    """The windows as they stand in the files."""
    for at, those in groupby(places, lambda place: place.at):
        with extents[at].opened() as stream:
            for place in those:
                stream.seek(place.begin)
                yield stream.read(place.end - place.begin)
