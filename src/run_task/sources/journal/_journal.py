"""A journal: the rows of a live feed on disk, with when they came."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.observe._url import looks_like_url, url_shown
from run_task.sources._arrived import Arrived
from run_task.sources._positioned import Position
from run_task.sources._protocol import SourceInfo
from run_task.sources.journal._folder import Folder, SegmentHead
from run_task.sources.journal._frames import Torn
from run_task.sources.journal._kept_rows import arrived
from run_task.sources.journal._segments import OnFull, SegmentWriter
from run_task.time._interval import TimeUnit
from run_task.time._length import IntervalLike, plain_length

_SEGMENT_BYTES: Final = 64 << 20


class Journal:
    """A folder in which the rows of a live source are kept, each with the time at which it came.

    ::

        pipeline.source(feed(), into=prices, journal="raw/")
        pipeline.source(feed(), into=prices, journal=Journal("raw/", keep="7d"))

    It is a source by itself, of what it holds: :class:`Arrived` rows, in the order in which they
    came. So a replay takes each as late as it was.

    Rows are kept in *segments*, files that only grow, as record batches of Arrow, each with a
    checksum. Rows that come within ``sync_every`` are written together, and the disk is told once
    to keep them. What a crash has left half written is cut off and named in the log; such rows had
    not been given on. Files of others in the folder stay as they are.

    :param folder: the folder, which is made if there is none; one for each source
    :param keep: how long rows are kept, counted back from the latest; for longer, if a checkpoint
        may need them; None: for ever. Whole segments are removed
    :param segment_bytes: from how many bytes on a segment is followed by another
    :param segment_age: from which age of its first row on it is, too
    :param sync_every: how long rows wait at most to be written together; a window that is due waits
        for those before it, and has them written at once
    :param on_full: what to do when the disk is full
    :raises ConfigError: if one of these cannot be, or pyarrow is not installed
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: IntervalLike | None = None,
        segment_bytes: int = _SEGMENT_BYTES,
        segment_age: IntervalLike = "1h",
        sync_every: IntervalLike = "10ms",
        on_full: OnFull = OnFull.WAIT,
    ) -> None:
        from run_task._extras import need

        need("pyarrow", "arrow")
        self.path: Path = _path(folder)
        """The folder."""
        where = f"Journal({str(folder)!r})"
        given: object = segment_bytes
        if type(given) is not int or given < 1:
            raise ConfigError(f"{where}: segment_bytes={brief(given)}: it is a number of bytes")
        chosen: object = on_full
        if type(chosen) is not OnFull:
            choices = ", ".join(map(str, OnFull))
            raise ConfigError(f"{where}: on_full={brief(chosen)}: it is one of {choices}")
        self._keep_ns = None if keep is None else plain_length(keep, f"{where}: keep={{}}").nanos
        self._segment_bytes = segment_bytes
        self._segment_ns = plain_length(segment_age, f"{where}: segment_age={{}}").nanos
        self.sync_ns: int = plain_length(sync_every, f"{where}: sync_every={{}}").nanos
        """How long rows wait at most to be written together, in nanoseconds."""
        self._on_full = on_full
        self.folder: Folder = Folder(self.path)
        """Its segments."""

    @property
    def unit(self) -> TimeUnit | None:
        """The unit of its timestamps; None: it holds nothing."""
        for number in self.folder.numbers():
            if (head := self.folder.head(number)) is not None:
                return head.unit
        return None

    @property
    def kind(self) -> str | None:
        """Of which type the source was that its last rows came from, if that has positions."""
        head = self._last_head()
        return None if head is None else head.kind

    @property
    def behind(self) -> Position:
        """The position of that source behind the last row."""
        head = self._last_head()
        if head is None:
            return None
        position: Position = head.inner
        try:
            for frame in self.folder.read(self.folder.numbers()[-1]):
                position = frame.inner
        except Torn:
            pass
        return position

    def _last_head(self) -> SegmentHead | None:
        for number in reversed(self.folder.numbers()):
            if (head := self.folder.head(number)) is not None:
                return head
        return None

    def about(self) -> SourceInfo:
        """The unit of its timestamps."""
        return SourceInfo(unit=self.unit)

    def __iter__(self) -> Iterator[Arrived[dict[str, Any]]]:
        """What it holds by now.

        :raises SourceError: if a segment is damaged, or missing between others; the message names
            the file, and where
        """
        for _, _, kept in self.folder.rows_from(0, 0):
            yield arrived(kept)

    def open(self, unit: TimeUnit, kind: str | None) -> SegmentWriter:
        """Have it for writing.

        :param unit: the unit of timestamps
        :param kind: of which type the source is, if it has positions
        :raises ConfigError: if somebody else writes there, or it cannot be written to
        :raises SourceError: if what is there is damaged, or in another unit
        """
        return SegmentWriter(
            *(self.folder, unit, kind, self._segment_bytes, self._segment_ns),
            *(self._keep_ns, self._on_full),
        )

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r})"


def kind_of(source: object) -> str:
    """Of which type a source is: positions are those of others of its type."""
    return f"{type(source).__module__}.{type(source).__qualname__}"


def _path(folder: object) -> Path:
    text: object = os.fspath(folder) if isinstance(folder, os.PathLike) else folder  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(f"Journal({brief(folder)}): it is the path of a folder, such as 'raw/'")
    if looks_like_url(text) and not os.path.lexists(text):
        raise ConfigError(
            f"Journal({url_shown(text)!r}): this looks like a URL, and a journal is a folder of "
            f"this machine: give its path"
        )
    path = Path(text).absolute()
    if path.exists() and not path.is_dir():
        raise ConfigError(
            f"Journal({text!r}): it is a file, and a journal is a folder: take another path"
        )
    return path
