"""Results as CSV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from run_task.sinks._base import ResultForm
from run_task.sinks._layout import Layout, check_layout
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.encoding._records import TypesGiven
from run_task.sinks.files._append import AppendedFile
from run_task.sinks.files._csv_long import LongCsv
from run_task.sinks.files._csv_wide import WideCsv
from run_task.sinks.files._disk import local_path
from run_task.sinks.files._inventory import StoredWindow
from run_task.sinks.files._rotation import Rotation


class CsvForm(ResultForm, Protocol):
    """What stands in a CSV file, in one of the layouts."""

    @property
    def header(self) -> bytes:
        """What is written first; empty: it is not known yet."""
        ...

    def learn(self, stream: BinaryIO, /) -> bool:
        """Learn the header from a file, at its beginning, unless it is known.

        :return: whether it is known
        :raises ConfigError: if it is a file of something else
        """
        ...

    def fix(self) -> None:
        """The header is written now, and does not change any more."""
        ...

    def may_begin(self, text: bytes, /) -> bool:
        """Whether a window, or a part of one, can begin so."""
        ...

    def is_older(self, stream: BinaryIO, /) -> bool:
        """Whether a file, at its beginning, is one of an older format."""
        ...

    def encode(self, window: Any, /) -> bytes:
        """A window as it stands in the file."""
        ...

    def read(self, stream: BinaryIO, begin: int, end: int, path: Path, /) -> Iterator[StoredWindow]:
        """The windows in a part of a file that are whole."""
        ...


class CsvSink(AppendedFile):
    """Appends to a CSV file, a row a task and window.

    The columns are ``format,pipeline,stage,key,bucket,window_start,window_end,unit,revision,task,
    value,error,rows``. The times are whole numbers of ``unit`` (``ns``, ``us``, ``ms``, ``s`` or
    ``m``) since the Unix epoch. The value is JSON, so a number is a number and a text stands in
    quotes of its own; where a task failed it is empty, and the error says why. ``rows`` is how many
    rows the window has: by this, one that was not written to its end is known. ``format`` is 2.

    **What survives.** A flush ends with an fsync: what was flushed survives a kill -9 and a loss
    of power. Later windows may be there or not, but not in part: a window that is not complete is
    cut off when the file is opened again. A window that is written again supersedes the older
    one, which closing takes out later.
    The file is read once when it is opened. Only one sink at a time can have it.

    :param path: the file; it is made if it is not there
    :param layout: how results are laid out. With ``Layout.WIDE``, the columns are ``window_start``
        and ``window_end`` (times in UTC), the key's if there is one, ``row`` if a task returns
        tables, one a task or field, and ``error``; texts stand in quotation marks, and nothing is
        None. The last one, ``window_rows``, says how many rows the window has. What the columns
        hold stands in a file beside it, called as it is with ``.columns``: the two belong together.
        The columns are those of the first flush: what would take another one later is refused
    :param rotation: when the file is put aside, and another one begun at its path; None: never
    :param encode: called with a value that has no form in JSON, wherever in a result it is; what it
        returns is stored in its place. Without it, such a result is refused
    :param types: dataclasses, NamedTuples and Enums, as which :meth:`rows` gives those that were
        stored; others it gives as a ``Record`` and an ``EnumMember``
    :raises ConfigError: if it cannot be opened, has other columns, or another sink has it
    :raises SinkError: if a row in it, other than the last ones, is not of a window, or it cannot be
        written, as on a disk that is full
    """

    _form: CsvForm

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        layout: Layout = Layout.LONG,
        rotation: Rotation | None = None,
        encode: Fallback | None = None,
        types: TypesGiven = (),
    ) -> None:
        own = local_path(path, "CsvSink")
        where = f"CsvSink({os.fspath(path)!r})"
        form: CsvForm
        if check_layout(layout, where) is Layout.WIDE:
            form = WideCsv(where, own, encode, self._check_unit, is_rotated=rotation is not None)
        else:
            form = LongCsv(encode, self._check_unit)
        super().__init__(path, form, rotation, types)

    @property
    def _header(self) -> bytes:
        return self._form.header

    def _learn_header(self, stream: BinaryIO) -> bool:
        return self._form.learn(stream)

    def _fix_header(self) -> None:
        self._form.fix()

    def _may_begin(self, text: bytes) -> bool:
        return self._form.may_begin(text)

    def _is_older(self, stream: BinaryIO) -> bool:
        return self._form.is_older(stream)

    def _encode(self, window: Any) -> bytes:
        return self._form.encode(window)

    def _read(self, stream: BinaryIO, begin: int, end: int, path: Path) -> Iterator[StoredWindow]:
        return self._form.read(stream, begin, end, path)
