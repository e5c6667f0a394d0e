"""What all sources that read messages have in common: rows of messages, outages, credentials."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_task import ConfigError, SourceError, TimeUnit
from run_task.sources import Batch, OnFault, Stamp
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._json_columns import FEW, JsonColumns
from run_task.sources.brokers._message import Message, MessageReader
from run_task.sources.brokers._outage import Outage

pytest.importorskip("msgspec")

NOW_NS = 1_700_000_000_123_456_789


def reader(**options: Any) -> MessageReader:
    return MessageReader("here", "kafka", **options)


def message(value: object, subject: str = "topic", sent_ns: int | None = None) -> Message:
    return (value if isinstance(value, bytes) else json.dumps(value).encode(), subject, sent_ns, 7)


def both_ways(messages: Sequence[Message], **options: Any) -> list[tuple[int, Mapping[str, Any]]]:
    """The rows of messages, which are the same one by one and in batches, of few and of many."""
    one = reader(**options)
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for each in messages:
        rows += one.rows(each, NOW_NS)
    for times in 1, FEW:
        other = reader(**options)
        batched: list[tuple[int, Mapping[str, Any]]] = []
        done, within = 0, 0
        given = [*messages] * times
        for batch, done, within in other.batches(given, NOW_NS):  # noqa: B007  the last counts
            batched += batch.rows()
        if batched:
            assert (done, within) == (len(given), 0)
        assert repr(batched) == repr(rows * times)
        assert other.malformed == one.malformed * times
    return rows


def told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_a_message_is_a_json_object_or_an_array_of_them() -> None:
    messages = [
        message({"timestamp": 1, "price": 2.5}),
        message([{"timestamp": 2, "price": 3.0}, {"timestamp": 3, "price": 4.5}]),
        message([]),
    ]
    assert both_ways(messages) == [(1, {"price": 2.5}), (2, {"price": 3.0}), (3, {"price": 4.5})]


def test_messages_that_are_alike_are_read_at_once() -> None:
    messages = [message({"timestamp": at, "n": at, "p": at / 2, "s": str(at)}) for at in range(9)]
    ((batch, done, within),) = reader().batches(messages, NOW_NS)
    assert (done, within) == (9, 0)
    dtypes = {name: column.dtype.kind for name, column in batch.columns.items()}
    assert dtypes == {"n": "i", "p": "f", "s": "O"}
    assert both_ways(messages)[8] == (8, {"n": 8, "p": 4.0, "s": "8"})


@pytest.mark.parametrize(
    "names",
    [
        ["a"],
        ["", "class", "a.b", "f0", "é", "a b", *(f"c{at}" for at in range(20))],
        ['with "quotes"', "with \\", "with \n"],
        [f"c{at}" for at in range(300)],
    ],
)
def test_objects_may_have_any_keys(names: Sequence[str]) -> None:
    each = {name: at for at, name in enumerate(names)}
    messages = [message({"timestamp": at, **each}) for at in range(FEW)]
    assert both_ways(messages)[1] == (1, each)


def test_values_of_many_objects_are_those_that_a_dict_would_have() -> None:
    values = [b"1", b"1.0", b"true", b"null", b'"1"', b'[1, {"b": 2}]', b"1" * 30, b"-0.0"]
    objects = [b'{"a": %b, "z": 0, "a": %b}' % (one, one) for one in values]
    found = JsonColumns("kafka").columns(objects)
    assert found is not None
    assert repr(found["a"]) == repr([json.loads(one)["a"] for one in objects])


def test_one_object_of_other_keys_has_the_others_read_one_by_one() -> None:
    alike = [message({"timestamp": at, "a": 1}) for at in range(FEW)]
    for other in {"timestamp": 99, "b": 1}, {"timestamp": 99}, {"timestamp": 99, "a": 1, "b": 2}:
        assert both_ways([*alike, message(other)])[FEW] == (
            99,
            {name: value for name, value in other.items() if name != "timestamp"},
        )


def test_messages_with_other_fields_make_batches_of_their_own_and_positions_count() -> None:
    messages = [
        message({"timestamp": 1, "a": 1}),
        message([{"timestamp": 2, "a": 2}, {"timestamp": 3, "b": 3}]),
        message({"timestamp": 4, "b": 4}),
    ]
    found = [(len(batch), done, within) for batch, done, within in reader().batches(messages, 0)]
    assert found == [(2, 1, 1), (2, 3, 0)]
    assert len(both_ways(messages)) == 4


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "UTF-8"),
        (b'{"timestamp": 1} {"timestamp": 2}', "is not JSON"),
        (b"17", "not a JSON object, nor an array"),
        (b'"text"', "not a JSON object, nor an array"),
        (b"[1]", r"its row 1: .* not a JSON object, nor an array"),
        (b"{}", "there is no timestamp"),
        (b'{"timestamp": true}', "is not a timestamp"),
        (b'{"timestamp": "soon"}', "is not a timestamp"),
        (b'{"timestamp": 9223372036854775808}', "beyond what 64 bits hold"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep|bytes, and largest"),
        (b'{"timestamp": 1, "text": "' + b"x" * (1 << 20) + b'"}', "1,048,.* bytes, and largest="),
    ],
)
def test_what_is_no_row_is_counted_and_told_with_where_it_stands(
    value: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = message({"timestamp": 1, "a": 1})
    messages = [good, message(value), good]
    assert both_ways(messages) == [(1, {"a": 1})] * 2
    assert caplog.records[0].levelno == logging.WARNING
    assert re.search(f"here, 7.*({reason})", told(caplog))


def test_a_row_that_is_wrong_costs_itself_also_within_a_message() -> None:
    one = reader()
    rows = one.rows(message([{"timestamp": 1}, {"no": 1}, {"timestamp": 3}]), 0)
    assert [when for when, _ in rows] == [1, 3]
    assert one.malformed == 1


@pytest.mark.parametrize("batched", [False, True])
def test_where_a_malformed_message_is_fatal_the_rows_before_it_come_first(batched: bool) -> None:
    messages = [message({"timestamp": 1}), message(b"{"), message({"timestamp": 2})]
    one = reader(on_malformed=OnFault.RAISE)
    got: list[Any] = []
    with pytest.raises(SourceError, match=r"here, 7: \{ is not JSON"):
        if batched:
            for batch, done, within in one.batches(messages, 0):
                got += batch.timestamps.tolist()
                assert (done, within) == (1, 0)
        else:
            for each in messages:
                got += [when for when, _ in one.rows(each, 0)]
    assert got == [1]


def test_timestamps_are_those_of_a_field_of_the_broker_or_of_the_arrival() -> None:
    sent = message({"t": "2026-01-01T00:00:00+01:00", "v": 1}, sent_ns=1_999_999)
    assert both_ways([sent], timestamp="t") == [(1_767_222_000_000, {"v": 1})]
    row = {"t": "2026-01-01T00:00:00+01:00", "v": 1}
    assert both_ways([sent], timestamp=Stamp.BROKER) == [(1, row)]
    arrival = both_ways([sent], timestamp=Stamp.ARRIVAL, unit=TimeUnit.MICROS)
    assert arrival == [(NOW_NS // 1000, row)]


def test_numbers_are_in_the_unit_in_which_they_are_stored() -> None:
    found = both_ways(
        [message({"timestamp": 1.5}), message({"timestamp": 2})],
        stored=TimeUnit.SECONDS,
        unit=TimeUnit.MILLIS,
    )
    assert found == [(1500, {}), (2000, {})]


def test_a_message_of_which_the_broker_has_no_time_is_malformed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert both_ways([message({"v": 1})], timestamp=Stamp.BROKER) == []
    assert "take timestamp=Stamp.ARRIVAL" in told(caplog)


def test_columns_choose_fields_and_say_their_types(caplog: pytest.LogCaptureFixture) -> None:
    messages = [
        message({"timestamp": 1, "p": 2, "s": "a", "more": [1]}),
        message({"timestamp": 2, "p": None, "s": "b", "more": 2}),
        message({"timestamp": 3, "p": 1.5, "s": "c"}),
    ]
    rows = both_ways(messages, columns={"p": float, "s": str})
    assert repr(rows[:2]) == "[(1, {'p': 2.0, 's': 'a'}), (2, {'p': nan, 's': 'b'})]"
    wrong = [message({"timestamp": 1, "p": "2", "s": "a"}), *messages]
    assert len(both_ways(wrong, columns={"p": float, "s": str})) == 3
    assert "column 'p': '2' is not a valid float" in told(caplog)


def test_a_key_is_a_column_with_the_subject(caplog: pytest.LogCaptureFixture) -> None:
    messages = [message({"timestamp": 1, "v": 1}, "a"), message({"timestamp": 2, "v": 2}, "b")]
    assert both_ways(messages, key="symbol") == [
        (1, {"v": 1, "symbol": "a"}),
        (2, {"v": 2, "symbol": "b"}),
    ]
    assert both_ways([message({"timestamp": 1, "symbol": "x"})], key="symbol") == []
    assert "it has this column itself" in told(caplog)


def test_any_callable_decodes(caplog: pytest.LogCaptureFixture) -> None:
    def decode(value: bytes) -> Mapping[str, Any]:
        when, price = value.decode().split(",")
        return {"timestamp": datetime.fromtimestamp(int(when), UTC), "price": float(price)}

    messages = [message(b"1,2.5"), message(b"poison"), message(b"3,4.5")]
    assert both_ways(messages, decode=decode) == [(1000, {"price": 2.5}), (3000, {"price": 4.5})]
    assert "poison cannot be decoded: ValueError" in told(caplog)


def test_what_a_callable_gave_is_not_changed() -> None:
    def decode(_: bytes) -> Mapping[str, Any]:
        return row

    row = {"timestamp": 1, "v": 2}
    one = reader(decode=decode)
    assert one.rows(message(b""), 0) == one.rows(message(b""), 0) == ((1, {"v": 2}),)


def test_a_callable_that_gives_no_rows_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def decode(_: bytes) -> str:
        return "text"

    assert both_ways([message(b"x")], decode=decode) == []
    assert "decode gave 'text'" in told(caplog)


def test_a_decode_that_exits_costs_its_message() -> None:
    def decode(value: bytes) -> Mapping[str, Any]:
        raise SystemExit

    assert both_ways([message(b"x")], decode=decode) == []


def test_ints_that_no_float_tells_stay_ints_beside_floats() -> None:
    large = 2**53 + 1
    rows = both_ways([message({"timestamp": 1, "n": large}), message({"timestamp": 2, "n": 0.5})])
    assert rows == [(1, {"n": large}), (2, {"n": 0.5})]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["timestamp", "a", "b", "key"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.lists(JSON.map(message) | st.binary(max_size=9).map(message), max_size=6), st.booleans())
def test_batches_hold_what_rows_do(messages: list[Message], typed: bool) -> None:
    columns = {"a": float, "b": str} if typed else None
    rows = [row for each in messages for row in reader(columns=columns).rows(each, NOW_NS)]
    found: list[Any] = []
    for batch, _, _ in reader(columns=columns).batches(messages, NOW_NS):
        assert isinstance(batch, Batch)
        assert batch.timestamps.dtype == np.int64
        found += batch.rows()
    assert [when for when, _ in found] == [when for when, _ in rows]
    for (_, row), (_, other) in zip(rows, found, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            same = value == other[name] or (value != value and other[name] != other[name])
            assert same or repr(value) == repr(other[name])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"decode": 1}, "decode=1: it is a callable"),
        ({"timestamp": 1}, "timestamp=1: it is the name of a field"),
        ({"timestamp": ""}, "timestamp='': it is the name of a field"),
        ({"key": 1}, "key=1: it is the name of a column"),
        ({"key": "timestamp"}, "key='timestamp': it is the name of a column of the message"),
        ({"key": "a", "columns": ["a"]}, "key='a': it is the name of a column of the message"),
        ({"largest": 0}, "largest=0: it is a number of bytes"),
        ({"columns": {"a": list}}, "column 'a' is to be"),
        ({"unit": "ms"}, "unit='ms': it is a TimeUnit"),
        ({"on_malformed": "skip"}, "'skip' is not one of"),
    ],
)
def test_options_that_cannot_be_are_refused(options: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"here: {reason}"):
        reader(**options)


def test_an_outage_is_told_at_once_then_sparingly_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = Outage("Source('x' at localhost:1)", "Is the broker there?")
    assert not outage.on
    waits = [outage.failed(OSError("refused: sEcret"), ["sEcret"]) for _ in range(30)]
    assert outage.on
    assert all(0.05 <= wait <= 5.0 for wait in waits)
    assert waits[0] <= 0.1 < 2.5 <= waits[-1]
    assert len(set(waits[-10:])) > 1
    assert told(caplog) == (
        "Source('x' at localhost:1) cannot be reached: OSError: refused: ***. Is the broker there? "
        "It is tried again until it is there"
    )
    outage.over()
    assert not outage.on
    assert "is there again, after" in told(caplog)
    assert outage.failed("again") <= 0.1
    assert len(caplog.records) == 2  # a minute has not passed


def test_a_password_is_a_text_of_a_file_or_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text("of file\n")
    monkeypatch.setenv("BROKER_PASSWORD", "of environment")
    assert Credentials("here").password() is None
    assert Credentials("here", "me", "of text").password() == "of text"
    of_file = Credentials("here", password_file=file)
    assert of_file.password() == "of file"
    file.write_text("another")
    assert of_file.secrets() == ["another"]
    of_env = Credentials("here", password_env="BROKER_PASSWORD")
    assert of_env.password() == "of environment"
    assert "of" not in repr(of_env)


def test_a_password_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="password_env='NOT_SET': there is no such"):
        Credentials("here", password_env="NOT_SET")
    with pytest.raises(ConfigError, match="cannot be read: FileNotFoundError"):
        Credentials("here", password_file=tmp_path / "none")
    with pytest.raises(ConfigError, match="password= and password_env= say the same") as refused:
        Credentials("here", password="sEcret", password_env="X")
    assert "sEcret" not in str(refused.value)
    wrong: Any = 5
    with pytest.raises(ConfigError, match="password= is a text, and not int"):
        Credentials("here", password=wrong)
