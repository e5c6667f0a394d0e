"""Journals: what they hold after any end, and what is refused."""

from __future__ import annotations

import errno
import itertools
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples
from tests.support.threads import PATIENCE, beside

from run_task import ConfigError, SourceError, TimeUnit
from run_task.sources import Arrived, Batch, Journal, OnFault, OnFull, Positioned, about, paced
from run_task.sources._arrived_batch import ArrivedBatch
from run_task.sources._faults import faults_told_to
from run_task.sources.journal import _segments
from run_task.sources.journal._frames import MAGIC
from run_task.sources.journal._journaled import JournaledSource, journaled

pytest.importorskip("pyarrow")

Kept = list[tuple[Any, Any]]


def keep(folder: Path, *commits: Sequence[Any], **options: Any) -> Kept:
    """Let rows of a source be kept, each of some sequences by a commit of its own. Returns what
    was given on, with their timestamps."""
    source = Steps(commits)
    kept = journaled("s", source, Journal(folder, **options), None)
    kept.count_in(TimeUnit.MILLIS)
    return [(item.timestamp, item.row) for item in source.through(kept)]


class Steps:
    """A source that gives some rows, and then waits until these have been given on."""

    def __init__(self, steps: Sequence[Sequence[Any]]) -> None:
        self._steps = steps
        self._more = threading.Semaphore(1)

    def __iter__(self) -> Iterator[Any]:
        for step in self._steps:
            assert self._more.acquire(timeout=PATIENCE)
            yield from step

    def through(self, kept: JournaledSource) -> Iterator[Any]:
        left = [len(step) for step in self._steps]
        for item in kept:
            yield item
            left[0] -= 1
            if not left[0]:
                del left[0]
                self._more.release()


def held(folder: Path) -> Kept:
    return [(item.timestamp, item.row) for item in Journal(folder)]


def rows(*values: float) -> list[tuple[int, dict[str, Any]]]:
    return [(int(value), {"v": float(value)}) for value in values]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("segment-*.journal"))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.datetimes(
        datetime(1900, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=5.5))]),
    ),
)
ROWS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3), VALUES, max_size=4
)


def told(kept: Kept) -> list[Any]:
    """Rows with the types of their values, in which NaN is equal to itself."""
    return [
        (time, [(name, type(value), repr(value)) for name, value in row.items()])
        for time, row in kept
    ]


@given(
    st.lists(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), ROWS), min_size=1), max_size=4)
)
@settings(max_examples=examples(60), deadline=None)
def test_rows_are_read_as_they_were_given_on_in_value_and_type(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[Any]]
) -> None:
    folder = tmp_path_factory.mktemp("raw")
    on = keep(folder, *commits)
    expected = [
        (
            time,
            {
                k: v.astimezone(UTC).replace(fold=0) if isinstance(v, datetime) else v
                for k, v in row.items()
            },
        )
        for time, row in itertools.chain(*commits)
    ]
    assert told(on) == told(expected)
    assert told(held(folder)) == told(expected)


def test_numbers_of_numpy_and_subclasses_are_kept_as_those_of_python(tmp_path: Path) -> None:
    class Odd(str):
        pass

    row = {
        "f": np.float64(0.1),
        "i": np.int32(3),
        "b": np.bool_(True),
        "t": Odd("x"),
        "n": np.str_("y"),
    }
    on = keep(tmp_path, [(1, row)])
    assert told(on) == told([(1, {"f": 0.1, "i": 3, "b": True, "t": "x", "n": "y"})])
    assert told(held(tmp_path)) == told(on)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (1.5, "keeps mappings"),
        ({1: 2.0}, "names in a row are texts"),
        ({"v": [1, 2]}, "'v': a journal keeps numbers"),
        ({"v": b"x"}, "'v': a journal keeps numbers"),
        ({"v": 2**63}, "'v': 9223372036854775808: a journal keeps ints of 64 bits"),
        ({"v": "\ud800"}, "whole characters"),
        ({"v": np.datetime64("2024-01-01")}, "'v': a journal keeps numbers"),
        ({"v": datetime(2024, 1, 1)}, "names no time zone"),  # noqa: DTZ001
    ],
)
def test_a_row_that_cannot_be_kept_is_malformed_and_the_others_are_kept(
    tmp_path: Path, row: Any, reason: str
) -> None:
    faults: list[SourceError] = []
    with faults_told_to(faults.append):
        source = [*rows(1), (2, row), *rows(3)]
        made = journaled("s", source, Journal(tmp_path), None)
        made.count_in(TimeUnit.MILLIS)
        on = [(item.timestamp, item.row) for item in made]
    assert on == rows(1, 3) == held(tmp_path)
    (fault,) = faults
    assert reason in fault.reason
    assert about(made).malformed == 1


def test_it_ends_the_source_where_bad_rows_are_to(tmp_path: Path) -> None:
    made = journaled("s", [(1, {"v": b""})], Journal(tmp_path), None)
    made.count_in(TimeUnit.MILLIS)
    with faults_told_to(lambda _: None, OnFault.RAISE), pytest.raises(SourceError, match="'v'"):
        list(made)


@pytest.mark.parametrize("item", [None, 0, (), "row", (1,), ("noon", {}), (1, 2, 3)])
def test_what_is_no_row_is_given_on_as_it_is_for_who_reads_it_to_tell(
    tmp_path: Path, item: Any
) -> None:
    made = journaled("s", [*rows(1), item, *rows(2)], Journal(tmp_path), None)
    made.count_in(TimeUnit.MILLIS)
    first, between, last = made
    assert between is item
    assert [first.timestamp, last.timestamp] == [1, 2]
    assert held(tmp_path) == rows(1, 2)


# What a crash leaves, and what a disk does


COMMITS: list[list[Any]] = [
    rows(1, 2),
    [(3, {"v": 3.0, "name": "ä"}), (4, {})],
    rows(5),
    rows(6, 7, 8),
]


def counts() -> list[int]:
    """How many rows there are after so many commits."""
    return [0, *itertools.accumulate(map(len, COMMITS))]


def test_a_file_that_is_cut_off_anywhere_holds_all_before_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole"
    everything = keep(whole, *COMMITS)
    (path,) = segments(whole)
    content = path.read_bytes()
    found: list[int] = []
    for size in range(len(content) + 1):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / path.name).write_bytes(content[:size])
        there = held(folder)
        assert there == everything[: len(there)]
        found.append(len(there))
        caplog.clear()
        if size % 7 == 0 or size > len(content) - 30:  # each takes a thread and two fsyncs
            keep(folder, rows(9))
            assert held(folder) == [*there, *rows(9)]
            cut = [one for one in caplog.records if "cut off" in one.getMessage()]
            assert all(path.name in one.getMessage() for one in cut)
            assert bool(cut) == (
                len(segments(folder)) == 2 and size < len(content) and not whole_at(content, size)
            )
    assert found == sorted(found)
    assert set(found) == set(counts())
    assert found[-1] == counts()[-1]


def whole_at(content: bytes, size: int) -> bool:
    """Whether a frame ends there."""
    return size == len(content) or content[size:].startswith(b"\xf4frame\r\n")


def test_a_flipped_bit_never_gives_a_wrong_row_and_is_an_error_unless_it_is_at_the_end(
    tmp_path: Path,
) -> None:
    whole = tmp_path / "whole"
    everything = keep(whole, *COMMITS)
    (path,) = segments(whole)
    content = path.read_bytes()
    last = content.rindex(b"\xf4frame\r\n")
    folder = tmp_path / "flipped"
    folder.mkdir()
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        (folder / path.name).write_bytes(flipped)
        if at >= last:
            assert held(folder) == everything[: counts()[-2]]
            continue
        with pytest.raises(SourceError, match=re.escape(str(folder / path.name))) as raised:
            held(folder)
        assert at < len(MAGIC) or "byte" in str(raised.value)


def test_a_writer_refuses_a_file_that_is_damaged_before_its_end(tmp_path: Path) -> None:
    keep(tmp_path, *COMMITS)
    (path,) = segments(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"\xf4frame") - 10] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"damaged from byte \d+ on, and goes on at byte \d+"):
        keep(tmp_path, rows(9))
    assert path.read_bytes() == content


@pytest.mark.parametrize("left", [0.0, 0.5])
def test_an_earlier_segment_that_is_cut_off_is_an_error(tmp_path: Path, left: float) -> None:
    for commit in COMMITS:
        keep(tmp_path, commit)
    path = segments(tmp_path)[1]
    os.truncate(path, int(path.stat().st_size * left))
    with pytest.raises(SourceError, match=path.name):
        held(tmp_path)


def test_a_segment_that_is_missing_between_others_is_an_error(tmp_path: Path) -> None:
    for commit in COMMITS:
        keep(tmp_path, commit)
    segments(tmp_path)[1].unlink()
    with pytest.raises(SourceError, match=r"segment-000000000002.journal is missing"):
        held(tmp_path)


def test_it_is_followed_by_another_when_it_is_large_enough(tmp_path: Path) -> None:
    keep(tmp_path, *([row] for row in rows(*range(20))), segment_bytes=1000)
    assert len(segments(tmp_path)) > 3
    assert held(tmp_path) == rows(*range(20))


# Others


def test_files_of_others_stay_as_they_are(tmp_path: Path) -> None:
    for name in ("notes.txt", "segment-1.journal", "segment-000000000001.journal.bak"):
        (tmp_path / name).write_text("mine")
    keep(tmp_path, rows(1), keep="1ms", segment_bytes=1)
    keep(tmp_path, rows(2), keep="1ms", segment_bytes=1)
    for name in ("notes.txt", "segment-1.journal", "segment-000000000001.journal.bak"):
        assert (tmp_path / name).read_text() == "mine"


def test_a_file_of_others_with_the_name_of_a_segment_is_an_error_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "segment-000000000001.journal"
    path.write_text("mine")
    with pytest.raises(SourceError, match="is no segment of a journal"):
        keep(tmp_path, rows(1))
    assert path.read_text() == "mine"


def test_two_do_not_write_to_one_folder(tmp_path: Path) -> None:
    one = journaled("s", rows(1), Journal(tmp_path), None)
    one.count_in(TimeUnit.MILLIS)
    given = iter(one)
    next(given)
    with pytest.raises(ConfigError, match="another journal is being written there"):
        keep(tmp_path, rows(2))
    assert list(given) == []
    keep(tmp_path, rows(2))
    assert held(tmp_path) == rows(1, 2)


def test_another_unit_is_refused(tmp_path: Path) -> None:
    keep(tmp_path, rows(1))
    made = journaled("s", rows(1), Journal(tmp_path), None)
    with pytest.raises(ConfigError, match="holds timestamps in millis"):
        made.count_in(TimeUnit.SECONDS)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keep": "often"}, "keep"),
        ({"keep": 7}, "keep"),
        ({"segment_bytes": 0}, "segment_bytes=0"),
        ({"segment_bytes": True}, "segment_bytes=True"),
        ({"segment_age": "0s"}, "segment_age"),
        ({"sync_every": None}, "sync_every"),
        ({"on_full": "wait"}, "on_full"),
    ],
)
def test_what_a_journal_cannot_be_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Journal("raw", **options)


@pytest.mark.parametrize("folder", ["", "a\0b", 7, None, "s3://bucket/raw", __file__])
def test_what_is_no_folder_is_refused(folder: Any) -> None:
    with pytest.raises(ConfigError, match="Journal"):
        Journal(folder)


def test_a_recording_that_is_played_needs_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it plays a recording"):
        journaled("s", paced(rows(1, 2), unit=TimeUnit.MILLIS), str(tmp_path), None)


# A disk that is full


class FullDisk:
    """Has writes fail until it is told that there is room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
        self.room = True
        self.tried = threading.Event()
        self._write = os.write
        self._part = part
        monkeypatch.setattr(os, "write", self._maybe)

    def _maybe(self, descriptor: int, content: Any) -> int:
        if self.room or threading.current_thread() is threading.main_thread():
            return self._write(descriptor, content)
        self.tried.set()
        if self._part and len(content) > self._part:
            return self._write(descriptor, bytes(content)[: self._part])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("part", [0, 10])
@pytest.mark.parametrize("before", [0, 1])
def test_with_a_full_disk_the_source_waits_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int, before: int
) -> None:
    monkeypatch.setattr(_segments, "AGAIN", 0.01)
    disk = FullDisk(monkeypatch, part)
    on: list[Any] = []

    def run() -> None:
        source = Steps([rows(1), rows(2), rows(3)][1 - before :])
        made = journaled("s", source, Journal(tmp_path), None)
        made.count_in(TimeUnit.MILLIS)
        for item in source.through(made):
            on.append(item.timestamp)
            disk.room = on != [1] and bool(on)

    disk.room = before == 1
    with beside(run) as running:
        assert disk.tried.wait(PATIENCE)
        assert on == [1][:before]
        assert not running.done()
        disk.room = True
        running.result(PATIENCE)
    assert held(tmp_path) == rows(1, 2, 3)[1 - before :]


def test_with_a_full_disk_the_source_ends_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, 10)
    made = journaled("s", rows(1), Journal(tmp_path, on_full=OnFull.RAISE), None)
    made.count_in(TimeUnit.MILLIS)
    disk.room = False
    with pytest.raises(SourceError, match="cannot be kept"), beside(lambda: list(made)):
        pass
    assert held(tmp_path) == []


# Positions


class Broker:
    """A positioned source: it gives rows from where it was sought, and notes what is committed."""

    def __init__(self, offsets: range) -> None:
        self._offsets = offsets
        self.next = offsets.start
        self.committed: list[int] = []
        self.sought: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        for offset in range(self.next, self._offsets.stop):
            self.next = offset + 1
            yield offset, {"v": float(offset)}

    @property
    def position(self) -> int:
        return self.next

    def seek(self, position: int, /) -> None:
        self.sought.append(position)
        self.next = position

    def commit(self, position: int, /) -> None:
        self.committed.append(position)

    @property
    def lag(self) -> int | None:
        return self._offsets.stop - self.next


def of(broker: Broker, folder: Path, **options: Any) -> JournaledSource:
    made = journaled("s", broker, Journal(folder, **options), None)
    made.count_in(TimeUnit.MILLIS)
    return made


class Columns:
    """A source that gives the rows of batches, one by one or as these."""

    def __init__(self, *batches: Batch) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return (row for batch in self._batches for row in batch.rows())

    def batches(self) -> Iterator[Batch]:
        return iter(self._batches)


COLUMNS: list[Any] = [
    np.array([1.0, np.nan]),
    np.array([1, 2]),
    np.array([True, False]),
    np.array(["a", None], object),
    np.array([None, None], object),
    np.array([1.0, np.nan, None, 2.0][1:3], object),
    np.array([1, "b"], object),  # of two kinds
    np.array([1.0, 2.0], np.float32),
    np.array([1, 2], np.int16),
    np.array([datetime(2024, 1, 1, tzinfo=UTC), None], object),
]


@pytest.mark.parametrize("column", COLUMNS, ids=map(str, range(len(COLUMNS))))
def test_batches_are_kept_as_their_rows_are(tmp_path: Path, column: Any) -> None:
    times = np.array([2, 1])
    batches = [Batch(times, {"a": column, "b": column}), Batch(times[:0], {}), Batch(times, {})]
    expected: list[Any] = [row for batch in batches for row in batch.rows()]
    made = journaled("s", Columns(*batches), Journal(tmp_path), None)
    made.count_in(TimeUnit.MILLIS)
    given = [(item.timestamp, item.row) for item in made]
    assert told(given) == told(held(tmp_path)) == told(expected)
    assert made.position == [1, 4]


class FarBehind(Columns):
    """The same, which has positions, and rows that windows wait for."""

    lag = 1

    def __init__(self, *batches: Batch) -> None:
        super().__init__(*batches)
        self.position = 0

    def seek(self, position: int, /) -> None:
        self.position = position

    def commit(self, position: int, /) -> None:
        assert position == self.position


class OneByOne:
    """A source without its batches."""

    position = 0

    def __init__(self, source: Columns) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Any]:
        return iter(self._source)


@pytest.mark.parametrize("batched", [True, False])
def test_rows_of_a_source_that_is_behind_come_in_their_time_also_in_batches(
    tmp_path: Path, batched: bool
) -> None:
    now = time.time_ns() // 10**6
    times = np.array([now - 5_000, now - 7_000, now - 4_000, now + 9_000])
    source = FarBehind(Batch(times, {"v": times}))
    made = journaled("s", source, Journal(tmp_path), None)
    made.count_in(TimeUnit.MILLIS)
    if not batched:
        made.read(OneByOne(source))
    *past, last = [int(item.arrival.astype(np.int64)) for item in made]
    assert past == [(now - ago) * 10**6 for ago in (5_000, 5_000, 4_000)]
    assert now * 10**6 <= last < (now + 9_000) * 10**6


@pytest.mark.parametrize("bad", [2**63, "\ud800", 1j])
def test_a_row_of_a_batch_that_cannot_be_kept_is_malformed_alone(tmp_path: Path, bad: Any) -> None:
    column = np.array([1, bad, 3], object) if bad == 2**63 else np.array(["1", bad, "3"], object)
    source = Columns(Batch(np.array([1, 2, 3]), {"v": column}))
    made = journaled("s", source, Journal(tmp_path), None)
    made.count_in(TimeUnit.MILLIS)
    assert [item.timestamp for item in made] == [1, 3]
    assert [time for time, _ in held(tmp_path)] == [1, 3]
    assert about(made).malformed == 1


def test_rows_that_are_alike_are_given_by_column_with_the_position_behind_each(
    tmp_path: Path,
) -> None:
    mixed = [*rows(1, 2, 3), (4, {"v": 4}), (5, {"v": 5.0})]
    made = journaled("s", [*rows(1, 2, 3)], Journal(tmp_path, sync_every="1h"), None)
    made.count_in(TimeUnit.MILLIS)
    (batch,) = made.groups()
    assert isinstance(batch, ArrivedBatch)
    assert [batch.behind(count) for count in range(4)] == [[1, 0], [1, 1], [1, 2], [1, 3]]
    assert [item.row for item in batch.arrived()] == [{"v": float(v)} for v in (1, 2, 3)]
    other = journaled("s", mixed, Journal(tmp_path / "other", sync_every="1h"), None)
    other.count_in(TimeUnit.MILLIS)
    positions: list[Any] = []
    for group in other.groups():
        singly = other.one_by_one(group) if isinstance(group, ArrivedBatch) else group
        positions += [other.position for _ in singly]
    assert positions == [[1, count] for count in range(1, 6)]
    assert told(held(tmp_path / "other")) == told(mixed)


def test_it_is_positioned_and_its_source_is_committed_once_rows_are_kept(tmp_path: Path) -> None:
    broker = Broker(range(10))
    made = of(broker, tmp_path)
    assert isinstance(made, Positioned)
    for item in made:
        assert broker.committed[-1] > item.timestamp
        assert held(tmp_path)[-1][0] >= item.timestamp
    assert broker.committed[-1] == 10
    assert made.lag == 0


def test_its_source_is_told_again_once_rows_have_entered(tmp_path: Path) -> None:
    broker = Broker(range(3))
    made = of(broker, tmp_path)
    for _ in made:
        before = [*broker.committed]
        made.commit(made.position)
        assert broker.committed == [*before, before[-1]]


@pytest.mark.parametrize("entered", range(11))
def test_it_goes_on_from_any_position_without_a_row_lost_or_twice(
    tmp_path: Path, entered: int
) -> None:
    first = of(Broker(range(10)), tmp_path, segment_bytes=400)
    position = first.position
    given: Any = iter(first)
    for _ in range(entered):
        next(given)
        position = first.position
    given.close()  # as if it were killed: nothing more is told to anybody
    first.close()
    kept = len(held(tmp_path))
    broker = Broker(range(15))
    second = of(broker, tmp_path)
    second.seek(position)
    assert [item.timestamp for item in second] == [*range(entered, 15)]
    assert broker.sought == ([kept] if kept else [])
    assert held(tmp_path) == rows(*range(15))


def test_without_a_position_it_begins_with_new_rows(tmp_path: Path) -> None:
    list(of(Broker(range(10)), tmp_path))
    assert [item.timestamp for item in of(Broker(range(12)), tmp_path)] == [10, 11]


def test_rows_are_read_with_the_times_at_which_they_came(tmp_path: Path) -> None:
    on = list(of(Broker(range(10)), tmp_path))
    made = of(Broker(range(10)), tmp_path)
    made.seek([1, 0])
    assert list(made) == on == list(Journal(tmp_path))
    assert all(type(item) is Arrived for item in on)


@pytest.mark.parametrize("position", [None, 1, [1], [0, 0], [1, -1], ["1", 0], [1, 0, 0]])
def test_what_is_no_position_is_refused(tmp_path: Path, position: Any) -> None:
    with pytest.raises(SourceError, match="no position of a journal"):
        of(Broker(range(1)), tmp_path).seek(position)


def test_a_position_behind_its_end_is_refused(tmp_path: Path) -> None:
    list(of(Broker(range(1)), tmp_path))
    with pytest.raises(SourceError, match="it ends before segment 7"):
        of(Broker(range(1)), tmp_path).seek([7, 0])


@pytest.mark.parametrize("needed", [False, True])
def test_old_segments_are_removed_unless_somebody_may_seek_them(
    tmp_path: Path, needed: bool
) -> None:
    seconds = itertools.count(1)
    source = Steps([rows(value) for value in range(10)])
    made = journaled("s", source, Journal(tmp_path, segment_bytes=1, keep="3s"), None)
    made.count_in(TimeUnit.MILLIS)
    made.begin(lambda: next(seconds) * 10**9, lambda _: None)
    if needed:
        made.seek([1, 0])
    counts: list[int] = []
    for _ in source.through(made):
        counts.append(len(segments(tmp_path)))
        if needed and len(counts) == 8:
            made.commit([8, 0])
            counts.append(len(segments(tmp_path)))
    assert counts == (
        [1, 2, 3, 4, 5, 6, 7, 8, 4, 4, 4] if needed else [1, 2, 3, 4, 4, 4, 4, 4, 4, 4]
    )
    with pytest.raises(SourceError, match="it has no rows of segment 1 any more"):
        of(Broker(range(40)), tmp_path).seek([1, 0])


def test_without_keep_none_is_removed(tmp_path: Path) -> None:
    made = of(Broker(range(10)), tmp_path, segment_bytes=1)
    list(made)
    made.commit(made.position)
    assert held(tmp_path) == rows(*range(10))
