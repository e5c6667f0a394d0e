"""Rows as bytes: record batches of Arrow, one for each shape that rows have."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.observe._format import brief
from run_task.sources._arrived import Arrived
from run_task.sources._arrived_batch import ArrivedBatch
from run_task.sources._batch import Batch
from run_task.sources._positioned import Position

_KINDS: Final[Mapping[type, str]] = {
    float: "float",
    int: "int",
    bool: "bool",
    str: "str",
    type(None): "none",
    datetime: "time",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO: Final = timedelta(microseconds=1)
_LENGTH: Final = struct.Struct("<I")
_AT: Final = "at"
_ARRIVAL: Final = "arrival"
_PLACE: Final = "place"

_DTYPES: Final[Mapping[type, Any]] = {float: np.float64, int: np.int64, bool: np.bool_}
_OF_DTYPE: Final = {np.dtype(dtype): _KINDS[kind] for kind, dtype in _DTYPES.items()}

RowShape: TypeAlias = tuple[tuple[str, ...], tuple[type, ...]]
"""The names of a row's fields, and the types of their values."""


class KeptRow(NamedTuple):
    """A row of a journal."""

    timestamp: int
    arrival_ns: int
    row: dict[str, Any]

    @property
    def size(self) -> int:
        """It is one row, as :class:`KeptRows` are several."""
        return 1

    @property
    def since_ns(self) -> int:
        """When it came, as the first of several."""
        return self.arrival_ns

    @property
    def until_ns(self) -> int:
        """When it came, as the last of several."""
        return self.arrival_ns


@dataclass(frozen=True, slots=True, eq=False)
class KeptRows:
    """Rows of a journal of one shape, by column."""

    timestamps: NDArray[np.int64]
    arrivals: NDArray[np.int64]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    """Of which type the values of each column are, which may be None, too."""
    columns: Sequence[NDArray[Any]]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.timestamps)

    @property
    def since_ns(self) -> int:
        """When the first of them came."""
        return int(self.arrivals[0])

    @property
    def until_ns(self) -> int:
        """When the last of them came."""
        return int(self.arrivals[-1])

    @classmethod
    def of_rows(
        cls, whens: Sequence[int], rows: Sequence[dict[Any, Any]], arrivals: Sequence[int]
    ) -> KeptRows | None:
        """What a source has given, if these are rows of one shape, of plain values."""
        names = tuple(rows[0])
        if not all(map(names.__eq__, map(tuple, rows))):
            return None
        try:
            times = np.array(whens, np.int64)
        except OverflowError:
            return None
        columns = ([row[name] for row in rows] for name in names)
        return cls._of(times, np.array(arrivals, np.int64), names, columns)

    @classmethod
    def of_batch(cls, batch: Batch, arrivals: NDArray[np.int64]) -> KeptRows | None:
        """The same of a batch whose timestamps are ints."""
        columns = batch.columns
        return cls._of(batch.timestamps, arrivals, tuple(columns), columns.values())

    @classmethod
    def _of(
        cls,
        times: NDArray[np.int64],
        arrivals: NDArray[np.int64],
        names: tuple[str, ...],
        columns: Iterable[Sequence[Any] | NDArray[Any]],
    ) -> KeptRows | None:
        if set(map(type, names)) - {str}:
            return None
        kinds: list[str] = []
        arrays: list[NDArray[Any]] = []
        for values in columns:
            told = _column(values)
            if told is None:
                return None
            kinds.append(told[0])
            arrays.append(told[1])
        return cls(times, arrivals, names, tuple(kinds), arrays)

    def given(self, behind: Callable[[int], Position]) -> ArrivedBatch:
        """These rows, as a source gives them.

        :param behind: the position behind so many of them
        """
        columns = dict(zip(self.names, self.columns))
        return ArrivedBatch(self.timestamps, columns, self.arrivals, behind)

    def rows(self) -> Iterator[KeptRow]:
        """The same, one by one."""
        batch = Batch(self.timestamps, dict(zip(self.names, self.columns)))
        arrivals = self.arrivals.tolist()
        return (KeptRow(at, came, row) for (at, row), came in zip(batch.rows(), arrivals))


def _column(values: Sequence[Any] | NDArray[Any]) -> tuple[str, NDArray[Any]] | None:
    """The kind of some values, and these; None: they are not of one kind, or not plain."""
    array: NDArray[Any]
    if isinstance(values, np.ndarray):
        array = values
        if array.dtype != object:
            known = _OF_DTYPE.get(array.dtype)
            return None if known is None else (known, array)
        types = set(map(type, array.tolist()))
    else:
        types = set(map(type, values))
        kind = next(iter(types))
        try:
            dtype = _DTYPES.get(kind, object) if len(types) == 1 else object
            array = np.fromiter(values, dtype, len(values))
        except OverflowError:
            return None
    kinds = types - {type(None)}
    if not kinds:
        return "none", array
    if len(kinds) > 1 or (kind := kinds.pop()) not in _PLAIN:
        return None
    return _KINDS[kind], array


def arrived(kept: KeptRow) -> Arrived[dict[str, Any]]:
    """A row as a source gives it."""
    return Arrived(kept.timestamp, kept.row, np.datetime64(kept.arrival_ns, "ns"))


class CannotKeep(Exception):
    """A row is none that a journal can keep."""


def plain(given: object) -> dict[str, Any]:
    """A row as it is read from a journal again: the same, if it has plain values only.

    :raises CannotKeep: if it cannot be kept; the message says why, and what to do
    """
    row: Any = given
    if type(given) is dict and _are_plain(row):
        return row  # type: ignore[no-any-return]  # as just seen
    if not isinstance(given, Mapping):
        raise CannotKeep(
            f"a journal keeps mappings of names to values, such as {{'price': 1.0}}, and not "
            f"{brief(given)}: give such rows, and make of them what you need by ingest="
        )
    return {_name(name): _value(name, value) for name, value in row.items()}


def _are_plain(row: dict[Any, Any]) -> bool:
    return all(type(value) in _PLAIN for value in row.values()) and all(
        type(name) is str for name in row
    )


_PLAIN: Final = frozenset(_KINDS) - {datetime}


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise CannotKeep(f"the names in a row are texts, and not {brief(name)}: make it one")
    return str(name)


def _value(name: object, given: Any) -> Any:
    value = given
    if _is_numpy(given):
        value = given.item()
    if type(value) in _PLAIN:
        return value
    kind: type
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if type(value) is datetime:
        if value.utcoffset() is None:
            raise CannotKeep(
                f"{name!r}: {brief(value)} names no time zone: give it one, such as datetime.UTC"
            )
        try:
            return value.astimezone(UTC).replace(fold=0)
        except OverflowError:
            pass  # in UTC, it is beyond the years that there are
    raise CannotKeep(
        f"{name!r}: a journal keeps numbers, bools, texts, datetimes with a time zone and None, "
        f"and not {brief(given)}: make one of these of it before, or leave it out"
    )


def _is_numpy(value: object) -> bool:
    """Whether it is a number, a bool or a text of NumPy's."""
    return isinstance(value, np.bool_ | np.number | np.str_) and not isinstance(
        value, np.timedelta64
    )


@dataclass(slots=True)
class _StoredFields:
    """How rows of one shape are stored."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    schema: Any
    """Of Arrow: when each row was, when it came, its place among others, and its values."""

    @classmethod
    def of(cls, fields: Sequence[tuple[str, str]]) -> _StoredFields:
        pa = need("pyarrow", "arrow")
        types = {
            "float": pa.float64(),
            "int": pa.int64(),
            "bool": pa.bool_(),
            "str": pa.string(),
            "none": pa.null(),
            "time": pa.int64(),
        }
        columns = [(_AT, pa.int64()), (_ARRIVAL, pa.int64()), (_PLACE, pa.int32())]
        columns += [(f"{number}", types[kind]) for number, (_, kind) in enumerate(fields)]
        names, kinds = (tuple(field[at] for field in fields) for at in (0, 1))
        return cls(names, kinds, pa.schema(columns))

    def takes(self, names: tuple[str, ...], kinds: tuple[str, ...]) -> bool:
        return self.names == names and all(
            kind in ("none", stored) for kind, stored in zip(kinds, self.kinds)
        )


@dataclass
class RowEncoder:
    """Makes bytes of rows, for one segment: a shape of rows is told where it is the first time."""

    _known: dict[RowShape, int] = field(default_factory=dict[RowShape, int])
    _shapes: list[_StoredFields] = field(default_factory=list[_StoredFields])

    def encode(self, given: Sequence[KeptRow | KeptRows], position: Any) -> bytes:
        """Some rows, with what comes of them.

        :param given: the rows, which are plain
        :param position: that of the source behind the last of them
        :raises CannotKeep: if one of them cannot be kept; then it is as if nothing had been asked
        """
        known, count = dict(self._known), len(self._shapes)
        try:
            return self._encode(given, position, count)
        except BaseException:
            self._known = known
            del self._shapes[count:]
            raise

    def _encode(self, given: Sequence[KeptRow | KeptRows], position: Any, count: int) -> bytes:
        parts: list[bytes] = []
        told: list[tuple[int, int]] = []
        groups: dict[int, tuple[list[KeptRow], list[int]]] = {}
        place = 0
        for some in given:
            if isinstance(some, KeptRows):
                places = np.arange(place, place + some.size, dtype=np.int32)
                number = self._number_of(some.names, some.kinds)
                columns = [some.timestamps, some.arrivals, places, *some.columns]
                parts.append(self._part(number, columns, some))
                told.append((number, len(parts[-1])))
            else:
                row = some.row
                shape = tuple(row), tuple(map(type, row.values()))
                known = self._known.get(shape)
                if known is None:
                    kinds = tuple(_KINDS[kind] for kind in shape[1])
                    known = self._known[shape] = self._number_of(shape[0], kinds)
                rows, others = groups.setdefault(known, ([], []))
                rows.append(some)
                others.append(place)
            place += some.size
        for number, (rows, others) in groups.items():
            ats, arrivals, mappings = zip(*rows)
            values = zip(*(mapping.values() for mapping in mappings))
            parts.append(self._part(number, [ats, arrivals, others, *values], rows))
            told.append((number, len(parts[-1])))
        head: dict[str, Any] = {"rows": place, "position": position, "parts": told}
        if new := self._shapes[count:]:
            head["shapes"] = [list(zip(fields.names, fields.kinds)) for fields in new]
        return with_head(head, *parts)

    def _part(
        self, number: int, columns: Sequence[Any], rows: KeptRows | Sequence[KeptRow]
    ) -> bytes:
        pa = need("pyarrow", "arrow")
        fields = self._shapes[number]
        try:
            arrays = [
                pa.array(_stored(kind, values), column.type)
                for kind, values, column in zip(
                    ("int", "int", "int", *fields.kinds), columns, fields.schema
                )
            ]
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise CannotKeep(_why(rows, error)) from error
        batch = pa.RecordBatch.from_arrays(arrays, schema=fields.schema)
        content: bytes = batch.serialize().to_pybytes()
        return content

    def _number_of(self, names: tuple[str, ...], kinds: tuple[str, ...]) -> int:
        fits = (number for number, one in enumerate(self._shapes) if one.takes(names, kinds))
        number = next(fits, len(self._shapes))
        if number == len(self._shapes):
            self._shapes.append(_StoredFields.of(list(zip(names, kinds))))
        return number


class RowDecoder:
    """Makes rows of bytes again, for one segment, from its first frame on."""

    def __init__(self) -> None:
        self._shapes: list[_StoredFields] = []

    def decode(self, head: Mapping[str, Any], parts: memoryview) -> Iterator[KeptRow]:
        """The rows of a frame.

        :param head: what is told of them
        :param parts: the rest of it
        """
        pa = need("pyarrow", "arrow")
        found: list[tuple[int, KeptRow]] = []
        offset = 0
        for number, size in head["parts"]:
            fields = self._shapes[int(number)]
            part = pa.py_buffer(parts[offset : offset + size])
            offset += size
            batch = pa.ipc.read_record_batch(part, fields.schema)
            ats, arrivals, places, *columns = (column.to_pylist() for column in batch.columns)
            for at, kind in enumerate(fields.kinds):
                if kind == "time":
                    columns[at] = [_when(value) for value in columns[at]]
            names = fields.names
            values = zip(*columns) if columns else ((),) * len(ats)
            rows = (
                KeptRow(at, arrival, dict(zip(names, row)))
                for at, arrival, row in zip(ats, arrivals, values)
            )
            if len(head["parts"]) == 1:
                return rows
            found += zip(places, rows)
        found.sort(key=lambda one: one[0])
        return (row for _, row in found)

    def learn(self, head: Mapping[str, Any]) -> None:
        """Take note of the shapes that a frame is the first to have."""
        for named in head.get("shapes", ()):
            self._shapes.append(_StoredFields.of([(name, kind) for name, kind in named]))


def with_head(head: Mapping[str, Any], *parts: bytes) -> bytes:
    """Bytes, with what is told of them before them."""
    told = json.dumps(head, separators=(",", ":")).encode()
    return b"".join((_LENGTH.pack(len(told)), told, *parts))


def head_of(content: bytes) -> tuple[Any, memoryview]:
    """What is told of bytes, and these."""
    (size,) = _LENGTH.unpack_from(content)
    start = _LENGTH.size + size
    return json.loads(content[_LENGTH.size : start]), memoryview(content)[start:]


def _stored(kind: str, values: Any) -> Any:
    if isinstance(values, np.ndarray):
        array: NDArray[Any] = values  # pyright: ignore[reportUnknownVariableType]  of whatever dtype
        # In an array of objects, Arrow would take NaN for None.
        return array.tolist() if array.dtype == object else array
    if kind != "time":
        return values
    return [None if value is None else (value - _EPOCH) // _MICRO for value in values]


def _when(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + micros * _MICRO


def _why(rows: KeptRows | Sequence[KeptRow], error: BaseException) -> str:
    if isinstance(rows, KeptRows) or len(rows) > 1:
        return str(error)
    wrong = [
        f"{name!r}: {brief(value)}"
        for name, value in rows[0].row.items()
        if (type(value) is int and not -(2**63) <= value < 2**63)
        or (type(value) is str and not _is_text(value))
    ]
    told = ", ".join(wrong) or brief(rows[0])
    return (
        f"{told}: a journal keeps ints of 64 bits and texts of whole characters: make a float or "
        f"a text of a larger int, and leave out halves of surrogate pairs"
    )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeError:
        return False
    return True
