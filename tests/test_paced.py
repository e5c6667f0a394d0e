from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.threads import PATIENCE, beside

from run_task import (
    ConfigError,
    ContextBuilder,
    Runner,
    SourceError,
    TaskInterval,
    TimeUnit,
    VirtualClock,
    Window,
    task,
)
from run_task.sources import Batch, Batched, CsvFile, PlaybackClock, SourceInfo, paced, polling
from run_task.sync._alarm import Alarm

SECONDS = TimeUnit.SECONDS
SECOND_NS = 10**9


class Jumping(VirtualClock):
    """A clock that moves on to the end of each wait."""

    def __init__(self, start_ns: int = 0) -> None:
        super().__init__(start_ns)
        self.waits: list[int] = []

    def wait(self, alarm: Alarm, until_ns: int) -> None:
        remaining_ns = until_ns - self.monotonic_ns()
        self.waits.append(remaining_ns)
        self.advance(TaskInterval.micros(max(1, -(-remaining_ns // 1000))))

    @property
    def seconds(self) -> float:
        return self.monotonic_ns() / SECOND_NS


class Recording:
    """A source that is batched."""

    def __init__(self, *batches: list[int]) -> None:
        self._batches = batches
        self.closed = False

    def about(self) -> SourceInfo:
        return SourceInfo(unit=SECONDS)

    def batches(self) -> Iterator[Batch]:
        for times in self._batches:
            yield Batch(np.array(times, np.int64), {"v": np.array(times, np.float64)})

    def __iter__(self) -> Iterator[tuple[int, dict[str, float]]]:
        for batch in self.batches():
            yield from batch.rows()

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("speed", [1, 0.5, 60, 1e6])
def test_rows_come_when_they_are_due_with_their_own_timestamps(speed: float) -> None:
    clock = Jumping(start_ns=5)
    rows = [(t, f"row {t}") for t in (1_000, 1_001, 1_001, 1_060, 1_600)]
    came = [(clock.seconds, row) for row in paced(rows, speed, unit=SECONDS, clock=clock)]
    assert [row for _, row in came] == rows
    for at, (timestamp, _) in came:
        assert at == pytest.approx((timestamp - 1_000) / speed, abs=2e-6)


def test_a_recording_may_have_times_of_other_kinds() -> None:
    first = datetime(2024, 7, 1, tzinfo=UTC)
    rows: list[Any] = [(first, "a"), (np.datetime64("2024-07-01T00:00:02.5"), "b")]
    clock = Jumping()
    source = paced(rows, unit=SECONDS, clock=clock)
    start = int(first.timestamp())
    assert list(source) == [(start, "a"), (start + 2, "b")]
    assert clock.seconds == 2
    with pytest.raises(SourceError, match="no time zone"):
        list(paced([(first.replace(tzinfo=None), "a")], unit=SECONDS, clock=clock))


def test_a_row_out_of_order_comes_right_after_the_one_before_it() -> None:
    clock = Jumping()
    times = [100, 110, 105, 90, 120]
    source = paced([(t, None) for t in times], unit=SECONDS, clock=clock)
    assert [(clock.seconds, t) for t, _ in source] == [
        (0, 100),
        (10, 110),
        (10, 105),
        (10, 90),
        (20, 120),
    ]


def test_rows_that_fell_due_meanwhile_come_without_waiting() -> None:
    clock = Jumping()
    came: list[float] = []
    for t, _ in paced([(t, None) for t in range(6)], unit=SECONDS, clock=clock):
        came.append(clock.seconds)
        if t == 1:
            clock.advance(TaskInterval.millis(2_500))
    assert came == [0, 1, 3.5, 3.5, 4, 5]


def test_batches_hold_all_that_is_due() -> None:
    clock = Jumping()
    source = paced(Recording([0, 0, 1, 3], [], [2, 3, 7]), clock=clock)
    assert isinstance(source, Batched)
    batches = [(clock.seconds, batch.timestamps.tolist()) for batch in source.batches()]
    assert batches == [(0, [0, 0]), (1, [1]), (3, [3]), (3, [2, 3]), (7, [7])]
    late = paced(Recording([0, 0, 1, 3], [2, 3, 7]), clock=clock)
    found: list[list[int]] = []
    for batch in late.batches():
        found.append(batch.timestamps.tolist())
        clock.advance(TaskInterval.seconds(3))
    assert found == [[0, 0], [1, 3], [2, 3], [7]]


def test_a_batched_source_row_by_row() -> None:
    clock = Jumping()
    source = paced(Recording([0, 2], [3]), clock=clock)
    assert [(clock.seconds, *row) for row in source] == [
        (0, 0, {"v": 0.0}),
        (2, 2, {"v": 2.0}),
        (3, 3, {"v": 3.0}),
    ]
    assert list(source) == []  # a recording is played once
    assert not isinstance(paced([(0, 1)], unit=SECONDS), Batched)


def test_a_recording_of_nothing() -> None:
    nothing: list[tuple[int, None]] = []
    source = paced(nothing, unit=SECONDS, clock=Jumping())
    assert source.start() is None
    assert list(source) == []
    assert list(paced(Recording([], [])).batches()) == []


def test_a_wait_for_a_row_ends_when_it_is_closed() -> None:
    recording = Recording([0, 10**6])
    for source in (paced(recording), paced(list(recording), unit=SECONDS)):
        rows = iter(source)
        assert next(rows)[0] == 0
        with beside(partial(list[object], rows)) as rest:
            source.close()
            assert rest.result(PATIENCE) == []
    assert recording.closed


@pytest.mark.parametrize("speed", [1, 1_000])
def test_the_clock_of_a_recording_reads_its_time(speed: float) -> None:
    base = VirtualClock(start_ns=77)
    source = paced([(1_000, "a"), (1_010, "b")], speed, unit=SECONDS, clock=base)
    clock = source.start()
    assert clock is not None
    assert source.start() is clock
    assert clock.time_ns() == 1_000 * SECOND_NS
    base.advance(TaskInterval.millis(10))
    assert clock.time_ns() == 1_000 * SECOND_NS + 10_000_000 * speed
    assert clock.monotonic_ns() == 10_000_000 * speed
    with beside(lambda: clock.wait(Alarm(), 20_000_000 * int(speed))) as waiting:
        assert not waiting.done()
        base.advance(TaskInterval.millis(10))
        waiting.result(PATIENCE)
    assert clock.monotonic_ns() == 20_000_000 * speed


class Passing(VirtualClock):
    """A clock by which a tenth of a second passes from each reading to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.untils: list[int] = []

    def monotonic_ns(self) -> int:
        self.advance(TaskInterval.millis(100))
        return super().monotonic_ns()

    def wait(self, alarm: Alarm, until_ns: int) -> None:
        self.untils.append(until_ns)


def test_time_that_passes_before_a_wait_does_not_make_it_longer() -> None:
    base = Passing()
    source = paced([(0, "a"), (5, "b")], 1, unit=SECONDS, clock=base)
    source.start()
    begun_ns = VirtualClock.monotonic_ns(base)
    assert len(list(source)) == 2
    assert 5 < len(base.untils) < 50
    assert max(base.untils) <= begun_ns + 5 * SECOND_NS


@given(st.floats(1e-3, 1e9), st.integers(0, 10**18))
def test_a_wait_for_a_time_of_a_recording_ends_when_its_clock_reads_it(
    speed: float, until_ns: int
) -> None:
    base = Jumping()
    clock = PlaybackClock(base, 0, speed)
    clock.wait(Alarm(), until_ns)
    (waited_ns,) = base.waits
    assert Fraction(speed) * waited_ns >= until_ns
    assert waited_ns == 0 or Fraction(speed) * (waited_ns - 1) < until_ns


def test_windows_of_a_runner_line_up_with_a_recording() -> None:
    """Five minutes of it in a quarter of a second, as windows of a minute."""

    @task
    def last(times: list[int], start: int, end: int) -> int:
        return max((t for t in times if start <= t < end), default=-1)

    source = paced([(t, None) for t in range(6_000_010, 6_000_310)], 1_200, unit=SECONDS)
    context, receiver, data = (
        ContextBuilder(list[int]).with_task(last).with_interval(TaskInterval.seconds(60)).build()
    )
    clock = source.start()
    assert clock is not None
    with Runner(context, clock=clock):
        for timestamp, _ in source:
            with data.write() as times:
                times.append(timestamp)
    windows = [dataset.window for dataset in receiver]
    assert windows[0] == Window(6_000_000, 6_000_060)
    assert windows == [Window(t, t + 60) for t in range(6_000_000, windows[-1].end, 60)]


def test_speed_by_the_clock_of_this_machine() -> None:
    start = time.monotonic()
    assert len(list(paced([(0, 1), (50, 2), (100, 3)], 1_000, unit=SECONDS))) == 3
    assert time.monotonic() - start >= 0.1


def test_a_file_keeps_its_unit_and_its_count_of_malformed_rows(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("timestamp,v\n1,1\nsoon,2\n3,3\n")
    source = paced(CsvFile(path, unit=SECONDS), 1e9)
    assert source.unit is SECONDS
    assert [t for t, _ in source] == [1, 3]
    assert source.malformed == 1


def test_what_cannot_be_played_is_refused() -> None:
    wrong: list[Any] = [0, -1, float("nan"), float("inf"), True, "1"]
    for speed in wrong:
        with pytest.raises(ConfigError, match="it is a positive number"):
            paced([(1, 2)], speed, unit=SECONDS)
    with pytest.raises(ConfigError, match="the unit of its timestamps is not known: give unit="):
        paced([(1, 2)])
    with pytest.raises(ConfigError) as caught:
        paced([(second, second) for second in range(10_000)])
    assert len(str(caught.value)) < 300  # a recording is not spelled out
    with pytest.raises(ConfigError, match=r"paced\(unit=TimeUnit.MILLIS\): .* are in TimeUnit.SEC"):
        paced(Recording([1]), unit=TimeUnit.MILLIS)
    with pytest.raises(ConfigError, match="what is played is an iterable"):
        paced(1, unit=SECONDS)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue] what is refused
    every = TaskInterval.seconds(1)
    assert paced(polling(lambda: 1, every)).unit is SECONDS


def test_it_tells_what_it_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("timestamp,v\n1,1\n")
    assert repr(paced(CsvFile("rows.csv"), speed=60)) == "paced(CsvFile('rows.csv'), speed=60)"
    rows = [(time, None) for time in range(1_000_000)]
    assert repr(paced(rows, unit=SECONDS)) == "paced([(0, ...), ...], speed=1)"
    assert repr(paced(Recording([1]), 0.5)) == "paced(Recording, speed=0.5)"
