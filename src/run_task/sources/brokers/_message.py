"""Messages of a broker as rows: decoded, stamped, and counted where no row can be made of them."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final, TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.columnar._columns import ColumnChoice, Kind, declared
from run_task.columnar._timestamps import Times
from run_task.errors import ConfigError, SourceError, described
from run_task.observe._format import brief
from run_task.sources._arguments import check
from run_task.sources._batch import Batch
from run_task.sources._faults import Faults, OnFault
from run_task.sources._json_rows import MalformedRow, read_json, shortened, typed_row
from run_task.sources.brokers._json_columns import FEW, JsonColumns
from run_task.time._interval import TimeUnit
from run_task.time._moment import timestamp as moment

LARGEST: Final = 1 << 20
"""How many bytes a message has at most, unless somebody has said another number."""

_INT64_END: Final = 1 << 63

_EXACT_END: Final = float(1 << 53)
"""Ints below are floats without loss."""

_DTYPES: Final[Mapping[type, Any]] = {float: np.float64, int: np.int64, bool: np.bool_}


class Stamp(enum.Enum):
    """What a message's rows are stamped with, where no field of theirs says it."""

    BROKER = "broker"
    """The time that the broker has of the message: when it was published, or came there."""

    ARRIVAL = "arrival"
    """The time at which it came here, by the machine's clock. A message that is given again after a
    restart has another one then."""


Decode: TypeAlias = Callable[[bytes], Mapping[str, Any] | Sequence[Mapping[str, Any]]]
"""What makes of a message's bytes a row, or several."""

Message: TypeAlias = tuple[bytes | None, str, int | None, Any]
"""A message as it came: its bytes, or None where it has no value; its subject, topic or routing
key; the broker's time of it in nanoseconds since the Unix epoch, if it has one; and where it
stands, which is told where no row can be made of it. A plain tuple, since it is made for each
message."""


class MessageOptions(TypedDict, total=False):
    """What all sources that read messages take. A message is one row, or several.

    :param decode: makes of a message's bytes a mapping of column to value, or a sequence of such;
        None: the message is JSON, an object or an array of objects
    :param timestamp: the key of the timestamp: a number, or a text in ISO 8601, which is in UTC
        where it names no zone; or :attr:`Stamp.BROKER` or :attr:`Stamp.ARRIVAL`
    :param unit: the unit of the timestamps to give; what is finer is rounded down
    :param stored: the unit of timestamps that stand there as numbers; None: ``unit``
    :param zone: what timestamps mean that name no time zone, such as ``"Europe/Berlin"``; None:
        they are in UTC
    :param columns: which keys a row has: a mapping to ``float``, ``int``, ``bool`` or ``str``, or
        a sequence of names; None: all but the timestamp, as they stand there
    :param key: the name of a column that each row gets besides, with the message's subject, topic
        or routing key; None: there is none
    :param largest: how many bytes a message has at most; one that is larger is malformed
    :param on_malformed: what to do with a message that no row can be made of, if ``on_bad_row`` of
        the pipeline does not end the source
    """

    decode: Decode | None
    timestamp: str | Stamp
    unit: TimeUnit
    stored: TimeUnit | None
    zone: str | tzinfo | None
    columns: ColumnChoice
    key: str | None
    largest: int
    on_malformed: OnFault


class MessageReader:
    """Makes rows of messages, and counts those of which none can be made.

    A row that is wrong costs itself, also among others of one message.

    :param where: whose messages they are, for errors
    :param extra: the extra with which the source comes
    :param place: tells of the last item of a :data:`Message` where it stands
    :raises ConfigError: if an option cannot be
    """

    def __init__(
        self,
        where: str,
        extra: str,
        place: Callable[[Any], str] = str,
        *,
        decode: Decode | None = None,
        timestamp: str | Stamp = "timestamp",
        unit: TimeUnit = TimeUnit.MILLIS,
        stored: TimeUnit | None = None,
        zone: str | tzinfo | None = None,
        columns: ColumnChoice = None,
        key: str | None = None,
        largest: int = LARGEST,
        on_malformed: OnFault = OnFault.SKIP,
    ) -> None:
        check(where, unit, stored, on_malformed)
        if decode is not None and not callable(decode):
            raise ConfigError(f"{where}: decode={decode!r}: it is a callable of bytes, or None")
        if not isinstance(timestamp, Stamp) and (type(timestamp) is not str or not timestamp):
            raise ConfigError(
                f"{where}: timestamp={timestamp!r}: it is the name of a field, Stamp.BROKER or "
                f"Stamp.ARRIVAL"
            )
        if key is not None and (type(key) is not str or not key):
            raise ConfigError(f"{where}: key={key!r}: it is the name of a column, or None")
        if type(largest) is not int or largest < 1:
            raise ConfigError(f"{where}: largest={largest!r}: it is a number of bytes from 1 on")
        self._where = where
        self._place = place
        self._kinds: dict[str, Kind | None] | None = declared(columns, where) or None
        self._key = key
        if key is not None and (key == timestamp or key in (self._kinds or {})):
            raise ConfigError(
                f"{where}: key={key!r}: it is the name of a column of the message, too"
            )
        self._json = decode is None
        self._decode: Callable[[bytes], Any] = (
            decode or need("msgspec.json", extra).Decoder().decode
        )
        self._by_column = JsonColumns(extra) if decode is None else None
        # Reads of a message no more than when it was.
        self._stamps: Callable[[bytes], Any] | None = None
        if decode is None and isinstance(timestamp, str):
            with contextlib.suppress(ValueError):  # some characters cannot be in a field's name
                only = need("msgspec", extra).defstruct(
                    "JsonStamp", [("when", Any, None)], rename={"when": timestamp}, gc=False
                )
                self._stamps = need("msgspec.json", extra).Decoder(only).decode
        self._largest = largest
        self._stamp = timestamp if isinstance(timestamp, Stamp) else None
        self._field = timestamp if isinstance(timestamp, str) else None
        self.unit: TimeUnit = unit
        self._unit_ns = unit.nanos
        self._as_stored = stored is None or stored is unit
        self._times = Times(where, unit, stored, zone, 0, None)
        self._faults = Faults(on_malformed)

    @property
    def needs_broker_time(self) -> bool:
        """Whether it stamps rows with the broker's time of their message."""
        return self._stamp is Stamp.BROKER

    @property
    def stamps_by_message(self) -> bool:
        """Whether it is the message, or the broker's time of it, that says the time of its rows."""
        return self._stamp is not Stamp.ARRIVAL

    @property
    def malformed(self) -> int:
        """How many malformed messages, and rows of messages, there were so far."""
        return self._faults.count

    def now(self) -> int:
        """The present, in the unit of the timestamps."""
        return time.time_ns() // self._unit_ns

    def times(self, messages: Sequence[Message]) -> Sequence[int | None]:
        """The timestamp of the latest row of each message; None: it has none."""
        if self._stamp is Stamp.BROKER:
            return [None if one[2] is None else one[2] // self._unit_ns for one in messages]
        return [self._latest(one[0]) for one in messages]

    def _latest(self, value: bytes | None) -> int | None:
        if self._stamps is not None and self._as_stored and value is not None:
            try:
                when: object = self._stamps(value).when
            except Exception:  # it is an array, or malformed
                when = None
            if type(when) is int:
                return when
        try:
            found = listed = self._found(value)
        except MalformedRow:
            return None
        if isinstance(found, Mapping) or not isinstance(found, Sequence):
            return self._when(listed)
        return max((at for row in listed if (at := self._when(row)) is not None), default=None)

    def _when(self, row: object) -> int | None:
        try:
            return self._time(cast("Mapping[str, Any]", row).get(self._field or ""))
        except (AttributeError, MalformedRow):
            return None

    def rows(self, message: Message, arrival_ns: int) -> Sequence[tuple[int, dict[str, Any]]]:
        """The rows of a message; none, if it is malformed.

        :param message: the message
        :param arrival_ns: when it came, in nanoseconds since the Unix epoch
        :raises SourceError: if it is malformed, and that is fatal
        """
        try:
            found = listed = self._found(message[0])
            if isinstance(found, Mapping):
                return (self._row(cast("Mapping[str, Any]", found), message, arrival_ns),)
            if not isinstance(found, Sequence) or isinstance(found, str | bytes):
                raise MalformedRow(None, self._no_row(message[0], found))
        except MalformedRow as wrong:
            self._note(message, wrong, self._shown(message[0]))
            return ()
        rows: list[tuple[int, dict[str, Any]]] = []
        for number, one in enumerate(listed, 1):
            try:
                if not isinstance(one, Mapping):
                    raise MalformedRow(None, self._no_row(message[0], one))
                rows.append(self._row(cast("Mapping[str, Any]", one), message, arrival_ns))
            except MalformedRow as wrong:
                reason = f"its row {number:,}: {wrong.reason}"
                self._note(message, MalformedRow(wrong.column, reason), cast("object", one))
        return rows

    def batches(
        self, messages: Sequence[Message], arrival_ns: int
    ) -> Iterator[tuple[Batch, int, int]]:
        """The rows of many messages by column, in their order.

        :param messages: the messages
        :param arrival_ns: when they came, in nanoseconds since the Unix epoch
        :return: each batch, of how many messages all rows have been given with it, and how many
            rows of the next one
        :raises SourceError: if one is malformed, and that is fatal; the rows of those before it
            have been given
        """
        batch = self._at_once(messages, arrival_ns)
        if batch is not None:
            yield batch, len(messages), 0
            return
        rows: list[tuple[int, dict[str, Any]]] = []
        for number, message in enumerate(messages):
            try:
                found = self.rows(message, arrival_ns)
            except SourceError:
                if rows:
                    yield batch_of(rows), number, 0
                raise
            for within, row in enumerate(found):
                if rows and row[1].keys() != rows[0][1].keys():
                    yield batch_of(rows), number, within
                    rows = []
                rows.append(row)
        if rows:
            yield batch_of(rows), len(messages), 0

    def _at_once(self, messages: Sequence[Message], arrival_ns: int) -> Batch | None:
        """Messages of one JSON object each, all alike; None: they are to be read one by one."""
        field, stamp = self._field, self._stamp
        given: list[Any] = [message[0] for message in messages]
        try:
            if max(map(len, given)) > self._largest:
                return None
            values_of = self._values_of(given)
        except (Exception, SystemExit):
            return None
        if values_of is None:
            return None
        times: NDArray[np.int64]
        try:
            if field is not None:
                values = values_of[field]
                if not self._as_stored or set(map(type, values)) != {int}:
                    values = [self._time(value) for value in values]
                times = np.array(values, np.int64)
            elif stamp is Stamp.ARRIVAL:
                times = np.full(len(given), arrival_ns // self._unit_ns, np.int64)
            else:
                sent: list[Any] = [message[2] for message in messages]
                times = np.array(sent, np.int64) // self._unit_ns
        except (KeyError, MalformedRow, OverflowError, TypeError):
            return None
        columns: dict[str, NDArray[Any]] = {}
        kinds = self._kinds
        if kinds is None:
            columns = {name: _column(values) for name, values in values_of.items() if name != field}
        else:
            for name, kind in kinds.items():
                if name not in values_of or (name == field and kind is int):
                    return None
                column = _column(values_of[name], kind)
                if column is None:
                    return None
                columns[name] = column
        if self._key is not None:
            if self._key in columns:
                return None
            columns[self._key] = _objects([message[1] for message in messages])
        return Batch(times, columns)

    def _values_of(self, given: Sequence[bytes]) -> dict[str, list[Any]] | None:
        """The values of each key of objects that have the same keys; None: they are no such."""
        if self._by_column is not None and len(given) >= FEW:
            values_of = self._by_column.columns(given)
            if values_of is not None:
                return values_of
        decode = self._decode
        found: list[dict[str, Any]] = [decode(value) for value in given]
        # Those of the same length that have all names of the first have no others.
        if set(map(type, found)) != {dict} or len(set(map(len, found))) != 1:
            return None
        return {name: [row[name] for row in found] for name in found[0]}

    def _found(self, value: bytes | None) -> Any:
        """What a message holds.

        :raises MalformedRow: if it cannot be decoded
        """
        if value is None:
            raise MalformedRow(None, "it has no value")
        if len(value) > self._largest:
            raise MalformedRow(None, f"it has {len(value):,} bytes, and largest={self._largest:,}")
        try:
            return self._decode(value)
        except (Exception, SystemExit) as error:
            if self._json:
                return read_json(value)  # which takes NaN, too, and says better what is wrong
            raise MalformedRow(
                None, f"{shortened(value)} cannot be decoded: {described(error)}"
            ) from None

    def _row(
        self, found: Mapping[str, Any], message: Message, arrival_ns: int
    ) -> tuple[int, dict[str, Any]]:
        """A row, of what a message says of it.

        :raises MalformedRow: if it is none
        """
        field = self._field
        if field is not None:
            value = found.get(field)
            if self._as_stored and type(value) is int and -_INT64_END <= value < _INT64_END:
                when = value
            else:
                when = self._time(value)
        elif self._stamp is Stamp.ARRIVAL:
            when = arrival_ns // self._unit_ns
        else:
            sent_ns = message[2]
            if sent_ns is None:
                raise MalformedRow(
                    None, "the broker tells no time of it: take timestamp=Stamp.ARRIVAL, or a field"
                )
            when = sent_ns // self._unit_ns
        if self._kinds is None:
            # What a user's decode gives may be used again.
            row = cast("dict[str, Any]", found) if self._json else dict(found)
            if field is not None:
                row.pop(field, None)
        else:
            row = typed_row(found, when, field, self._kinds)
        if self._key is not None:
            if self._key in row:
                raise MalformedRow(
                    self._key, "it has this column itself, which key= is to give it: name another"
                )
            row[self._key] = message[1]
        return when, row

    def _time(self, value: object) -> int:
        try:
            if value is None or isinstance(value, str | int | float):
                return self._times.parse(value)
            return moment(value, self.unit, self._times.clock)
        except ValueError as error:
            raise MalformedRow(self._field, str(error)) from None

    def _no_row(self, value: bytes | None, found: object) -> str:
        if self._json:
            return f"{shortened(value or b'')} is not a JSON object, nor an array of such"
        return f"decode gave {brief(found)}: a row is a mapping of column to value"

    def _shown(self, value: bytes | None) -> str | bytes | None:
        """A message as dead letters have it; of one that is too large, as much as may be."""
        if value is None:
            return None
        value = bytes(value[: self._largest])
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
        return value

    def _note(self, message: Message, wrong: MalformedRow, given: object) -> None:
        where = f"{self._where}, {self._place(message[3])}"
        error = SourceError(where, None, wrong.column, wrong.reason)
        error.given = given
        self._faults.note(error)


def batch_of(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Batch:
    """Rows that have the same columns, as a batch."""
    times = np.array([when for when, _ in rows], np.int64)
    columns = {name: _column([row[name] for _, row in rows]) for name in rows[0][1]}
    return Batch(times, columns)


def _column(values: list[Any], kind: Kind | None = None) -> Any:
    """Values as an array.

    :param values: the values
    :param kind: the type that they are to have; None: any
    :return: the array; None: not all are of the type
    """
    types = set(map(type, values))
    if kind is float and types <= {int, float, type(None)}:
        try:
            return np.array(values, np.float64)  # None is NaN there
        except OverflowError:
            return None
    if kind is not None and types != {kind}:
        return None
    if len(types) == 1 and (dtype := _DTYPES.get(next(iter(types)))) is not None:
        try:
            return np.array(values, dtype)
        except OverflowError:
            return None if kind is not None else _objects(values)
    if types == {int, float}:
        try:
            array = np.array(values, np.float64)
        except OverflowError:
            return _objects(values)
        if (np.abs(array) < _EXACT_END).all():
            return array
    return _objects(values)


def _objects(values: list[Any]) -> NDArray[Any]:
    return np.fromiter(values, object, len(values))
