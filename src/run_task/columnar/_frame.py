"""Tables of other libraries, as record batches of Arrow.

There is one way in for all of them, the stream of Arrow's PyCapsule interface: polars, pyarrow and
DuckDB give it of what they have. Beside it are what has to be asked for it: pandas, whose index is
no column, queries that are yet to be run, and datasets of files.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np

from run_task._extras import is_of_library, need
from run_task.columnar._any_frame import is_dataset, is_lazy, is_pandas
from run_task.columnar._arrow_columns import is_bytes, is_text, plain_type
from run_task.columnar._decimals import is_decimal
from run_task.errors import ConfigError
from run_task.observe._format import quoted

TIME_NAMES: Final = ("time", "timestamp")
"""What a column of times is called, unless somebody says another name: as this library calls it."""

_NAMED: Final = 30
"""How many columns a message names."""

_NOT_IN_ARROW: Final = ("Object", "Int128", "UInt128")
"""Types of polars that Arrow has not."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A table of another library.

    :param shown: what it is, for messages
    :param schema: the names and types of its columns, as Arrow has them
    :param read: gives a reader of record batches; called with the names of columns, and how many
        rows a batch should have at most
    :param rows: all of it, where it lies in memory, as a table of Arrow's; else None
    :param once: whether it can be read only once
    :param index: the columns that are an index of pandas
    """

    shown: str
    schema: Any
    read: Callable[[Sequence[str], int], Any]
    rows: Any = None
    once: bool = False
    index: Collection[str] = ()

    @classmethod
    def of(cls, thing: Any, shown: str, wanted: Collection[str] | None = None) -> Frame:
        """Any table.

        :param thing: a table, as :func:`is_frame` tells
        :param shown: what to call it
        :param wanted: the columns that are going to be read: others may be what Arrow cannot read.
            None: it has to read all
        :raises ConfigError: if it is none that Arrow can read, or two columns have one name
        """
        with reading(shown):
            made = _frame(thing, shown, wanted)
        _check_names(made.schema.names, shown)
        return made

    @property
    def types(self) -> Mapping[str, Any]:
        """The type of each column, by name."""
        return dict(zip(self.schema.names, self.schema.types))

    def batches(self, names: Sequence[str], rows: int) -> Generator[Any]:
        """Its rows, as record batches.

        :param names: of which columns
        :param rows: how many a batch should have at most
        :raises Exception: whatever the library raises
        """
        with contextlib.closing(self.read(names, rows)) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)

    def table(self, names: Sequence[str]) -> Any:
        """All of it as a table of Arrow's.

        :param names: which columns
        :raises ConfigError: if it cannot be read
        """
        if self.rows is not None:
            return self.rows.select(names)
        with reading(self.shown), contextlib.closing(self.read(names, 1 << 17)) as reader:
            return need("pyarrow", "arrow").Table.from_batches(list(reader), reader.schema)

    def check_there(self, name: str) -> str:
        """See whether there is a column.

        :return: its name
        :raises ConfigError: if there is none
        """
        if name not in self.types:
            raise ConfigError(
                f"{self.shown}: there is no column {name!r}; there are {named(self.types)}"
            )
        return name

    def time_column(self, told: str | None, other: Collection[str] = ()) -> str:
        """The column of the times.

        :param told: its name, if somebody has said it
        :param other: the names of columns that it is not
        :raises ConfigError: if it is not there, or cannot be told
        """
        if told is not None:
            return self.check_there(told)
        types = self.types
        left = {name: kind for name, kind in types.items() if name not in other}
        for name in (*(each for each in self.index if is_moment(types[each])), *TIME_NAMES):
            if name in left:
                return name
        found = [name for name, kind in left.items() if is_moment(kind)]
        if len(found) == 1:
            return found[0]
        why = "several columns hold times" if found else "no column holds times"
        raise ConfigError(
            f"{self.shown}: {why}, and none is called {' or '.join(map(repr, TIME_NAMES))}: say "
            f"which it is by timestamp=; there are {named(found or types)}"
        )

    def check_time(self, name: str, *, zone_told: bool) -> None:
        """See whether a column is one of times.

        :param name: the column
        :param zone_told: whether somebody has said what times mean that name no time zone
        :raises ConfigError: if it is not, or nobody can tell what they mean
        """
        types = need("pyarrow", "arrow").types
        found = self.types[name]
        if not (is_moment(found) or types.is_integer(found)):
            raise ConfigError(
                f"{self.shown}: column {name!r} is {found}, and times are timestamps, dates, or "
                f"ints in the unit at hand: make such a column of it, or say by timestamp= which "
                f"other column has them"
            )
        aware = types.is_timestamp(found) and found.tz is not None
        if is_moment(found) and not (aware or zone_told):
            raise ConfigError(
                f"{self.shown}: column {name!r} is {found}, and names no time zone: say by zone= "
                f"which its times mean, such as zone='UTC', or give a column of times that do"
            )

    def value_columns(self, time: str, columns: Collection[str] | None = None) -> list[str]:
        """The columns that are values.

        :param time: the column of the times
        :param columns: those that are wanted: an index of pandas is a column only if it is one of
            them; None: all are
        """
        return [
            name
            for name in self.schema.names
            if name != time and (name not in self.index or columns is None or name in columns)
        ]

    def check_fit(self, names: Collection[str], columns: Mapping[str, np.dtype[Any]]) -> None:
        """See whether columns are those of a series, and no others.

        :param names: the columns
        :param columns: those of the series, with what they hold
        :raises ConfigError: if not; it names the first that is missing, is too much, or holds
            something else
        """
        for name in columns:
            if name not in names:
                raise ConfigError(
                    f"{self.shown}: column {name!r} is missing, which the series has; there are "
                    f"{named(names)}"
                )
        for name in names:
            if name not in columns:
                raise ConfigError(
                    f"{self.shown}: the series has no column {name!r}, but {named(columns)}: leave "
                    f"it out, or make the series with it"
                )
        for name, dtype in columns.items():
            self.check_type(name, dtype, "the series holds")

    def check_type(self, name: str, dtype: np.dtype[Any], who: str) -> None:
        """See whether the values of a column may be of a type.

        :param name: the column
        :param dtype: the type; ``numpy.dtype(str)`` for texts of any length
        :param who: who wants that, for messages
        :raises ConfigError: if they may not
        """
        if not fits(self.types[name], dtype):
            told = "str" if dtype == np.dtype(str) else dtype
            raise ConfigError(
                f"{self.shown}: column {name!r} is {self.types[name]}, and {who} {told}: "
                f"convert it, or declare it as what it is"
            )


def fits(found: Any, dtype: np.dtype[Any]) -> bool:
    """Whether values of an Arrow type may be those of a column of a series.

    :param found: the type
    :param dtype: what the column holds; ``numpy.dtype(str)`` for texts of any length
    """
    types = need("pyarrow", "arrow").types
    found = plain_type(found)
    if types.is_null(found):  # it tells nothing
        return True
    if dtype.kind == "U":
        return is_text(found)
    if dtype.kind == "S":
        return is_bytes(found)
    if dtype.kind == "M":
        return is_moment(found) or types.is_integer(found)
    number = types.is_integer(found) or types.is_floating(found) or types.is_boolean(found)
    return bool(number or (is_decimal(found) and dtype.kind != "b"))


def named(names: Collection[str]) -> str:
    """Names as a message tells them: not all, if they are many."""
    some = ", ".join(quoted(name) for name in islice(names, _NAMED)) or "none"
    return f"{some} and {len(names) - _NAMED:,} more" if len(names) > _NAMED else some


def is_moment(arrow_type: Any) -> bool:
    """Whether it is a type of times on a calendar."""
    types = need("pyarrow", "arrow").types
    return bool(types.is_timestamp(arrow_type) or types.is_date(arrow_type))


@contextlib.contextmanager
def reading(shown: str) -> Generator[None]:
    """A block in which whatever another library raises is a ConfigError.

    :param shown: what is read
    """
    try:
        yield
    except ConfigError:
        raise
    except BaseException as error:
        if not is_of_library(error):
            raise
        raise ConfigError(f"{shown}: Arrow cannot read it: {_told(error)}") from error


def _told(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_names(names: Iterable[Any], shown: str) -> None:
    """See whether a name tells which column is meant.

    :raises ConfigError: if two columns have one name
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError(
                f"{shown}: there are {count} columns {name!r}, and which is meant cannot be told: "
                f"give them names of their own"
            )


def _frame(thing: Any, shown: str, wanted: Collection[str] | None) -> Frame:
    pa = need("pyarrow", "arrow")
    kind: Any = thing.__class__
    if is_pandas(thing):
        return _of_pandas(thing, shown, wanted)
    if isinstance(thing, pa.RecordBatchReader):
        return Frame(shown, thing.schema, lambda names, _: _selected(thing, names), once=True)
    if hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__"):
        if isinstance(thing, pa.Table | pa.RecordBatch):
            return _of_table(pa.table(thing), shown)
        if hasattr(kind, "collect_schema"):  # of polars: its stream only tells where its rows lie
            return _of_table(pa.table(_readable(thing, shown, wanted)), shown)

        def streamed(names: Sequence[str], _: int) -> Any:
            return _selected(pa.RecordBatchReader.from_stream(thing), names)

        with contextlib.closing(pa.RecordBatchReader.from_stream(thing)) as reader:
            return Frame(shown, reader.schema, streamed)
    if is_lazy(kind):
        return _of_query(_readable(thing, shown, wanted), shown)
    if is_dataset(kind):

        def scanned(names: Sequence[str], rows: int) -> Any:
            # With threads, each of them would keep memory.
            scanner = thing.scanner(columns=list(names), batch_size=rows, use_threads=False)
            return scanner.to_reader()

        return Frame(shown, thing.schema, scanned)
    schema = thing.projected_schema
    return Frame(shown, schema, lambda names, _: _selected(thing.to_reader(), names))


def _of_table(table: Any, shown: str, index: Collection[str] = ()) -> Frame:
    def read(names: Sequence[str], rows: int) -> Any:
        return table.select(names).to_reader(max_chunksize=rows)

    return Frame(shown, table.schema, read, rows=table, index=index)


def _readable(frame: Any, shown: str, wanted: Collection[str] | None) -> Any:
    """The columns of a frame of polars that Arrow has.

    :raises ConfigError: if one that is wanted is none: of Python's objects, it would be addresses
    """
    schema: Mapping[str, Any] = frame.collect_schema()
    left = [name for name, dtype in schema.items() if str(dtype) not in _NOT_IN_ARROW]
    for name, dtype in schema.items():
        if name not in left and (wanted is None or name in wanted):
            raise ConfigError(
                f"{shown}: column {name!r} is {dtype}, which Arrow has not: leave it out, or make "
                f"another one of it"
            )
    return frame if len(left) == len(schema) else frame.select(left)


def _of_query(query: Any, shown: str) -> Frame:
    """Of a query: it is run for each reading, and its rows come a batch at a time where the
    library can do so."""
    pa = need("pyarrow", "arrow")
    schema = pa.RecordBatchReader.from_stream(query.head(0).collect()).schema

    def read(names: Sequence[str], rows: int) -> Any:
        selected = query.select(list(names))
        if not hasattr(selected, "collect_batches"):
            return pa.RecordBatchReader.from_stream(selected.collect())
        types = pa.schema([schema.field(name) for name in names])
        batches = selected.collect_batches(chunk_size=rows, maintain_order=True)
        found = (part for some in batches for part in pa.table(some).cast(types).to_batches())
        return pa.RecordBatchReader.from_batches(types, found)

    return Frame(shown, schema, read)


def _of_pandas(frame: Any, shown: str, wanted: Collection[str] | None) -> Frame:
    """Of pandas: an index that has a name, or that is of times, is a column, too."""
    pa = need("pyarrow", "arrow")
    _check_names(frame.columns, shown)
    index: dict[str, Any] = {}
    for level, known in enumerate(frame.index.names):
        values = frame.index.get_level_values(level)
        name = TIME_NAMES[0] if known is None and values.dtype.kind == "M" else known
        if name is not None and name not in frame.columns:
            index[str(name)] = values
    if wanted is not None:  # what is not, may be of anything
        frame = frame[[c for c in frame.columns if c in wanted or frame[c].dtype.kind != "O"]]
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    for name, values in index.items():
        table = table.append_column(name, pa.Array.from_pandas(values))
    return _of_table(table, shown, index=tuple(index))


def _selected(reader: Any, names: Sequence[str]) -> Any:
    """A reader of some columns of another one."""
    pa = need("pyarrow", "arrow")
    if list(names) == list(reader.schema.names):
        return reader
    schema = pa.schema([reader.schema.field(name) for name in names])
    return pa.RecordBatchReader.from_batches(schema, (batch.select(names) for batch in reader))
