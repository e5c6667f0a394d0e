"""A source whose rows enter several data, each with an ingest of its own."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bench import PipelineBench, RecordingSink
from tests.support.proof import examples
from tests.support.threads import PATIENCE, eventually, together

from run_task import (
    Atom,
    Closed,
    ConfigError,
    Pipeline,
    RunnerConfig,
    RwLock,
    Task,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
)
from run_task.pipeline._branches import Split
from run_task.sources import Batch, CsvFile, OnFault, SourceInfo, paced

SECONDS = TimeUnit.SECONDS
ROWS = [(time, {"v": float(time)}) for time in (0, 3, 11, 9, 12, 25)]


def series(closed: Closed = Closed.LEFT, **settings: Any) -> TimeSeries:
    return TimeSeries({"v": float}, SECONDS, closed=closed, **settings)


def newest(atom: Atom[float], row: dict[str, float]) -> None:
    atom.reset(row["v"])


def add(values: list[float], row: dict[str, float]) -> None:
    values.append(row["v"])


def seen(data: Any, start: int, end: int) -> list[Any]:
    return [
        view.time.tolist() if isinstance(view, TimeSeriesView) else view
        for view in data
        if not isinstance(view, list)
    ] + [[*view] for view in data if isinstance(view, list)]


class Batches:
    """Rows by column, a few at a time."""

    def about(self) -> SourceInfo:
        return SourceInfo(unit=SECONDS)

    def batches(self) -> Iterator[Batch]:
        for part in (ROWS[:2], ROWS[2:4], ROWS[4:]):
            times = np.array([time for time, _ in part], np.int64)
            yield Batch(times, {"v": times.astype(float)})

    def __iter__(self) -> Iterator[Any]:
        return (row for batch in self.batches() for row in batch.rows())


def generated() -> Iterator[Any]:
    yield from ROWS


async def awaited() -> AsyncIterator[Any]:
    for row in ROWS:
        yield row


EXPECTED = [
    (10, [[0, 3], 3.0, [0.0, 3.0]]),
    (20, [[0, 3, 9, 11, 12], 12.0, [0.0, 3.0, 11.0, 9.0, 12.0]]),
    (30, [[0, 3, 9, 11, 12, 25], 25.0, [0.0, 3.0, 11.0, 9.0, 12.0, 25.0]]),
]


def made(source: Any, **options: Any) -> tuple[Pipeline, RecordingSink]:
    raw, latest, all_of_them = series(), Atom(-1.0), RwLock[list[float]]([])
    pipeline, sink = Pipeline(), RecordingSink()
    pipeline.source(
        source,
        into=(raw, latest, all_of_them),
        ingest=(None, newest, add),
        max_ahead=None,
        **options,
    )
    config = RunnerConfig(upstream_timeout=6 * PATIENCE)
    stage = pipeline.stage("all", [Task(seen)], (raw, latest, all_of_them), "10s", config)
    stage.sink(sink)
    return pipeline, sink


def results(sink: RecordingSink) -> list[Any]:
    return [(ds.timestamp, ds["seen"]) for ds in sink.of("all")]


@pytest.mark.parametrize("give", [lambda: ROWS, generated, Batches, lambda: iter(ROWS)])
def test_each_row_enters_all_of_them(give: Callable[[], Any]) -> None:
    pipeline, sink = made(give())
    with pipeline.replay() as replay:
        for _ in replay:
            pass
        sources = replay.summary.sources
    assert results(sink) == EXPECTED
    assert list(sources) == ["source-1[0]", "source-1[1]", "source-1[2]"]
    assert [counts.stored for counts in sources.values()] == [6, 6, 6]
    assert [counts.late for counts in sources.values()] == [1, 1, 1]


@pytest.mark.parametrize("give", [lambda: ROWS, generated, Batches])
def test_a_recording_that_is_played_gives_what_a_replay_does(give: Callable[[], Any]) -> None:
    pipeline, sink = made(paced(give(), 1e9, unit=SECONDS))
    pipeline.run_sync()
    assert results(sink) == EXPECTED
    assert [counts.stored for counts in pipeline.stats.sources.values()] == [6, 6, 6]


@pytest.mark.parametrize("give", [lambda: ROWS, generated, awaited, Batches])
def test_a_live_source_is_read_once(give: Callable[[], Any]) -> None:
    pipeline, _ = made(give())
    pipeline.run_sync()
    assert [counts.received for counts in pipeline.stats.sources.values()] == [6, 6, 6]
    assert [counts.stored for counts in pipeline.stats.sources.values()] == [6, 6, 6]


@settings(max_examples=examples(25), deadline=None)
@given(
    times=st.lists(st.integers(0, 20), min_size=1, max_size=10),
    closed=st.sampled_from(Closed),
    retention=st.none() | st.integers(1, 3),
    intervals=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    batched=st.booleans(),
)
def test_live_and_replayed_it_gives_the_same(
    times: list[int],
    closed: Closed,
    retention: int | None,
    intervals: tuple[int, int],
    batched: bool,
) -> None:
    class Recording(Batches):
        def batches(self) -> Iterator[Batch]:
            for first in range(0, len(times), 3):
                stamps = np.array(times[first : first + 3], np.int64)
                yield Batch(stamps, {"v": stamps.astype(float)})

    def run(*, live: bool) -> Any:
        source: Any = Recording() if batched else list(Recording())
        # One that holds the ends of windows beside one that does not.
        bars, raw, latest = series(closed), series(retention=retention), Atom(0.0)
        pipeline, sink = Pipeline(), RecordingSink()
        pipeline.source(
            paced(source, 1e9, unit=SECONDS) if live else source,
            into=(bars, raw, latest),
            ingest=(None, None, newest),
        )
        config = RunnerConfig(upstream_timeout=6 * PATIENCE)
        one = pipeline.stage("one", [Task(total)], (bars, latest), f"{intervals[0]}s", config)
        one.into(raw, lambda into, dataset: into.append(dataset.timestamp - 1, v=0.5))
        pipeline.stage("all", [Task(seen)], (raw, latest, bars), f"{intervals[1]}s", config)
        for stage in pipeline.stages:
            stage.sink(sink)
        if live:
            pipeline.run_sync()
        else:
            for _ in pipeline.replay():
                pass
        return [[(ds.window, ds.to_dict()) for ds in sink.of(name)] for name in ("one", "all")]

    assert run(live=True) == run(live=False)


def total(data: Any, start: int, end: int) -> float:
    return float(data[0]["v"].sum()) + float(data[1])


# Fates


def test_a_bad_row_is_counted_for_each_of_them_and_costs_only_where_it_is_bad() -> None:
    raw, latest, letters = series(), Atom(0.0), [*range(0)]
    dead: list[Any] = []

    def bury(row: Any, reason: str, detail: str) -> None:
        dead.append(reason)

    def positive(atom: Atom[float], row: Any) -> None:
        if row["v"] < 0:
            raise ValueError("it is negative")
        atom.reset(row["v"])

    rows: list[Any] = [(0, {"v": 1.0}), "no row", (1, {"v": -1.0}), (2, {"w": 2.0, "v": 3.0})]
    pipeline = Pipeline().source(
        rows,
        into=(raw, latest),
        ingest=(None, positive),
        name="ticks",
        dead_letters=bury,
    )
    pipeline.stage("both", [Task(seen)], (raw, latest), "10s")
    assert len(list(pipeline.replay())) == 1
    first, second = (pipeline.stats.sources[f"ticks[{i}]"] for i in (0, 1))
    assert (first.received, first.stored, first.malformed, first.rejected) == (4, 2, 2, 0)
    assert (second.received, second.stored, second.malformed, second.rejected) == (4, 2, 1, 1)
    assert sorted(dead) == ["malformed"] * 3 + ["rejected"]
    assert not letters


def test_what_a_file_finds_malformed_is_counted_for_each_of_them(tmp_path: Any) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("timestamp,v\n0,1.0\n1,x\n2,3.0\n")
    raw, latest = series(), Atom(0.0)
    columns: Any = {"v": float}
    pipeline = Pipeline().source(
        CsvFile(path, unit=SECONDS, columns=columns), into=(raw, latest), ingest=(None, newest)
    )
    pipeline.stage("both", [Task(seen)], (raw, latest), "10s")
    ((_, dataset),) = pipeline.replay()
    assert dataset["seen"] == [[0, 2], 3.0]
    for counts in pipeline.stats.sources.values():
        assert (counts.received, counts.stored, counts.malformed) == (3, 2, 1)


@pytest.mark.parametrize("live", [False, True])
def test_a_row_that_is_fatal_to_one_of_them_ends_the_source_for_all(live: bool) -> None:
    rows: list[Any] = [
        (0, {"v": 1.0}),
        (1, {"v": "x"}),
        *((i, {"v": 2.0}) for i in range(2, 50_000)),
    ]
    pipeline, _ = made(iter(rows), on_bad_row=OnFault.RAISE)
    with pytest.raises((ConfigError, ExceptionGroup), match=r"column 'v'|failed"):
        if live:
            pipeline.run_sync()
        else:
            list(pipeline.replay())
    assert pipeline.stats.sources["source-1[0]"].stored == 1


class Closing:
    """Rows without end, until it is closed."""

    def __init__(self) -> None:
        self.closed = 0
        self.read = 0
        self._go_on = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        while not self.closed:
            self.read += 1
            yield 0, {"v": 1.0}
            self._go_on.wait(0.001)

    def close(self) -> None:
        self.closed += 1


def test_a_shutdown_closes_it() -> None:
    source = Closing()
    bench = PipelineBench()
    raw, latest = series(), Atom(0.0)
    bench.pipeline.source(source, into=(raw, latest), ingest=(None, newest))
    bench.stage("both", (raw, latest), tasks=[Task(seen)])
    with bench.pipeline:
        eventually(lambda: len(raw.view()) > 3)
        eventually(lambda: latest.value == 1.0)
    assert source.closed
    counts = bench.pipeline.stats.sources
    assert all(one.received == one.stored + one.waiting for one in counts.values())


def test_a_source_that_fails_is_told_once() -> None:
    def rows() -> Iterator[Any]:
        yield 0, {"v": 1.0}
        raise OSError("gone")

    pipeline, _ = made(rows())
    with pytest.raises(ExceptionGroup) as caught:
        pipeline.run_sync()
    assert [str(error) for error in caught.value.exceptions] == ["gone"]
    pipeline, _ = made(rows())
    with pytest.raises(OSError, match="gone"):
        list(pipeline.replay())


def test_it_is_drawn_with_both() -> None:
    pipeline, _ = made(ROWS)
    drawn = pipeline.draw()
    assert drawn.count("v9z") == 3 + 3 + 1


def rows_of(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view)


def itself(value: float, start: int, end: int) -> float:
    return value


# What is refused

SERIES, ATOM = series(), Atom(0.0)


@pytest.mark.parametrize(
    ("into", "ingest", "said"),
    [
        ((), None, "has one at least"),
        ((SERIES, SERIES), None, "the same data twice"),
        ((SERIES, ATOM), None, "say by ingest= how a row enters <Atom"),
        ((SERIES, ATOM), newest, "a tuple of as many"),
        ((SERIES, ATOM), (None,), "a tuple of as many"),
        ((SERIES, ATOM), (None, 3), "is no function"),
        ((SERIES, [1]), (None, newest), r"has no write\(\)"),
        (SERIES, (None, newest), "is of several data"),
    ],
)
def test_what_does_not_fit_together_is_refused(into: Any, ingest: Any, said: str) -> None:
    pipeline: Any = Pipeline()
    with pytest.raises(ConfigError, match=said):
        pipeline.source(ROWS, into=into, ingest=ingest)
    assert not pipeline.sources
    assert list(pipeline.source(ROWS, into=SERIES).stats.sources) == ["source-1"]


def test_timestamps_of_one_source_have_one_unit() -> None:
    pipeline = Pipeline()
    with pytest.raises(ConfigError, match="timestamps have one unit"):
        pipeline.source(ROWS, into=(series(), TimeSeries({"v": float}, TimeUnit.MILLIS)))


def test_data_without_a_unit_takes_that_of_the_other() -> None:
    raw, latest = TimeSeries({"v": float}, TimeUnit.MILLIS), Atom(0.0)
    pipeline = Pipeline().source(
        [(1000, {"v": 1.0}), (11_000, {"v": 2.0})], into=(raw, latest), ingest=(None, newest)
    )
    pipeline.stage("raw", [Task(rows_of)], raw, "10s")
    pipeline.stage("latest", [Task(itself)], latest, "10s")
    assert [(name, *ds.values()) for name, ds in pipeline.replay()] == [
        ("raw", 1),
        ("latest", 1.0),
        ("raw", 2),
        ("latest", 2.0),
    ]


def test_a_name_that_another_way_has_is_refused() -> None:
    pipeline = Pipeline().source(ROWS, into=(series(), series()), name="a")
    with pytest.raises(ConfigError, match=r"called 'a\[1\]'"):
        pipeline.source(ROWS, into=series(), name="a[1]")


def test_each_of_them_has_to_be_read() -> None:
    pipeline = Pipeline().source(ROWS, into=(raw := series(), series()))
    pipeline.stage("raw", [Task(rows_of)], raw, "10s")
    (mistake,) = pipeline.mistakes()
    assert "no stage reads" in str(mistake)


# The parts


def test_each_way_is_given_all_in_order_whoever_reads() -> None:
    split = Split(iter(range(3_000)), 4, ahead=10)
    found: list[list[int]] = [[] for _ in range(4)]

    def take(number: int) -> None:
        found[number].extend(split.ways[number])

    together(*(lambda number=number: take(number) for number in range(4)))
    assert found == [[*range(3_000)]] * 4


def test_one_that_is_behind_is_waited_for() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    split = Split(numbers(), 2, ahead=5)
    fast, slow = (iter(way) for way in split.ways)
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.extend(fast))
    thread.start()
    eventually(lambda: len(taken) == 5)
    assert len(read) == 5
    assert list(slow) == [*range(100)]
    thread.join(PATIENCE)
    assert taken == [*range(100)]


def test_the_last_to_leave_closes_what_was_read() -> None:
    closed: list[bool] = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            closed.append(True)

    split = Split(numbers(), 2)
    one, other = (iter(way) for way in split.ways)
    assert (next(one), next(one), next(other)) == (0, 1, 0)
    one.close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  as generators are
    assert not closed
    assert list(other) == [1]  # what has been read, and no more
    other.close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  as generators are
    assert closed
