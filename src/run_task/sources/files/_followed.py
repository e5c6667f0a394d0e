"""Rows of files that are followed, each with a position behind the last that was given."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import numpy as np

from run_task.errors import SourceError
from run_task.observe._log import Log
from run_task.sources._batch import Batch
from run_task.sources._chunk import Chunk, without_faults
from run_task.sources._faults import Faults
from run_task.sources._partitioned import NOTHING_YET, LivePartitions
from run_task.sources._positioned import Position
from run_task.sources._protocol import SourceInfo
from run_task.sources.files._live import Followed, ReadMark, digest_of

_log = Log(__name__)


_KEEP: Final = (
    "shards need the rows of their files for as long as these are retained: have files renamed no "
    "more than once in that time, and neither emptied nor compressed, or begin with another "
    "checkpoint="
)


class FollowedRows:
    """The rows of a file that is followed: those that are there, and then that there is nothing
    yet.

    A position is the place behind the last whole lines of which all was given, and how many rows
    behind it were; so it is told from which bytes on lines come again.

    :param place: the file
    :param chunks: reads what is there of it, in a pass
    :param batch_rows: how many rows a batch has at most
    :param told: what is told of the source
    :param needs_all: whether it is an error that what was read is in no file any more
    """

    def __init__(
        self,
        place: Followed,
        chunks: Callable[[], Iterator[Chunk]],
        batch_rows: int,
        told: Callable[[], SourceInfo],
        *,
        needs_all: bool,
    ) -> None:
        self.place: Final = place
        """The file."""
        self.about: Final = told
        """What is told of the source."""
        self.faults: Faults | None = None
        """Counts what is malformed."""
        self.batch_rows: int = batch_rows
        """How many rows a batch has at most."""
        self._chunks = chunks
        self._needs_all = needs_all
        self._rows = 0  # how many were given behind the mark
        self._seen = 0  # how many there were in the lines in hand
        self._told = 0  # the line behind those of which all that is malformed was told
        self._in_hand = 0  # how many rows are with who reads
        self._is_sought = False

    def batches(self) -> Generator[Batch]:
        """The rows, from the start of the file or from where it was sought, until it is stopped.

        :raises SourceError: as the source does that they are of
        """
        place = self.place
        if not self._is_sought:
            place.close()
            place.mark, self._rows, self._told = ReadMark(), 0, 0
        self._is_sought, self._seen = False, 0
        try:
            while not place.stopped:
                if self._looks():
                    yield from self._read()
                    if place.end_pass():
                        self._rows = self._told = 0
                        continue
                yield NOTHING_YET
        finally:
            self._in_hand = 0
            place.close()

    def position_before(self, left: int, /) -> Position:
        """Where to go on.

        :param left: how many rows of the last batch have not been given
        """
        mark, rows = self.place.mark, self._rows - left
        return {
            "turn": mark.turn,
            "file": mark.file,
            "before": mark.before,
            "at": mark.at,
            "line": mark.line,
            "known": [len(mark.known), digest_of(mark.known)],
            "rows": rows,
            "told": self._told if rows else 0,
        }

    def seek(self, position: Position, /) -> None:
        """As of :class:`Positioned`.

        :raises SourceError: if that is in no file any more, and all of it is needed
        """
        place = self.place
        mark = ReadMark(
            **{name: position[name] for name in ("turn", "before", "file", "at", "line")}
        )
        self._rows, self._told, self._is_sought = position["rows"], position["told"], True
        try:
            if place.go_to(mark, *position["known"]):
                return
        except OSError as error:
            raise SourceError(place.name, None, None, f"cannot be read on: {error}") from error
        self._rows = self._told = 0
        lost = (
            f"what was read of it, up to byte {mark.at:,}, is in no file of its folder any more: "
            f"it was emptied, removed or compressed"
        )
        if self._needs_all:
            raise SourceError(
                *(place.name, None, None),
                f"{lost}: {_KEEP}",
            )
        _log.warning("%s: %s: what is there now is read from its start", place.name, lost)

    def commit(self, position: Position, /) -> None:
        """Nothing: a file has nobody to be told."""

    @property
    def lag(self) -> int | None:
        """As of :class:`Positioned`: how many rows are with who reads, and one more where there is
        something that was not looked at."""
        in_hand = self._in_hand  # before what is there is looked at, of which they were a part
        more = self.place.has_more()
        return None if more is None else in_hand + more

    def check_passed(
        self, before: Sequence[Position], position: Position, behind: Sequence[Position], /
    ) -> None:
        """As of :class:`Renamed`."""
        turn, file = position["turn"], position["file"]
        same = all(one["file"] in (None, file) for one in (*before, *behind) if one["turn"] == turn)
        last = max(one["turn"] for one in before)
        is_next = last == turn - 1 and all(
            one["file"] in (None, position["before"]) and one["file"] != file
            for one in before
            if one["turn"] == last
        )
        reached = min((one["turn"] for one in behind), default=turn if is_next else last)
        if not same or last > turn or reached < turn:
            raise SourceError(
                *(self.place.name, None, None),
                f"of the files that had its name, one is gone whose rows are still needed, or it "
                f"was emptied: {_KEEP}",
            )

    def close(self) -> None:
        """Give no more rows. From any thread."""
        self.place.stop()

    def _looks(self) -> bool:
        turn = self.place.mark.turn
        try:
            return self.place.look()
        except OSError as error:
            raise SourceError(self.place.name, None, None, f"cannot be read on: {error}") from error
        finally:
            if self.place.mark.turn != turn:  # it was emptied
                self._rows = self._told = 0

    def _read(self) -> Iterator[Batch]:
        """The rows of a pass."""
        faults, place = self.faults, self.place
        assert faults is not None
        for chunk in self._chunks():
            self._let_go()
            for batch in without_faults(self._untold(chunk), faults):
                if not faults.are_fatal:
                    self._told = place.held
                for start in range(0, len(batch), self.batch_rows):
                    part = batch[start : start + self.batch_rows]
                    first, self._seen = self._seen, self._seen + len(part)
                    if self._seen > self._rows:
                        part = part[max(0, self._rows - first) :]
                        self._rows, self._in_hand = self._seen, len(part)
                        yield part
                        self._in_hand = 0
        self._let_go()

    def _let_go(self) -> None:
        """Lines that were in hand lie before the mark now."""
        self._rows, self._seen = max(0, self._rows - self._seen), 0

    def _untold(self, chunk: Chunk) -> Chunk:
        """The same without what is malformed and was told by an earlier reader."""
        told = [line for line in chunk.faults if line < self._told]
        if not told:
            return chunk
        lines = np.asarray(chunk.lines)
        there = ~np.isin(lines, told)
        faults = {line: fault for line, fault in chunk.faults.items() if line >= self._told}
        return Chunk(chunk.batch.where(there), lines[there], faults)


class FollowedFiles(LivePartitions):
    """The rows of files that are followed, brought together by time while there are many of them.

    :param origin: the source, as messages call it
    :param parts: the files, by name
    """

    def __init__(self, origin: str, parts: Mapping[str, FollowedRows]) -> None:
        super().__init__(origin, parts)
        self._files = parts

    def reading(self, faults: Faults) -> Self:
        """The same, while what is malformed is counted."""
        for one in self._files.values():
            one.faults = faults
        return self

    def seek(self, position: Position, /) -> None:
        """As of :class:`Positioned`: a file that was not followed before is read from its start."""
        for name, part in self._files.items():
            if (before := position.get(name)) is not None:
                part.seek(before)

    def position_before(self, left: int, /) -> Position:
        """As of :class:`Renamed`, of one file."""
        ((name, part),) = self._files.items()
        return {name: part.position_before(left)}

    def check_passed(
        self, before: Sequence[Position], position: Position, behind: Sequence[Position], /
    ) -> None:
        """As of :class:`Renamed`."""
        for name, part in self._files.items():
            part.check_passed(
                [one[name] for one in before], position[name], [one[name] for one in behind]
            )

    def _pause(self) -> None:
        next(iter(self._files.values())).place.wait()  # they are looked at all together

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for batch in self.one_by_one():
            yield from batch.rows()
