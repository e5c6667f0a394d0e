"""Sources that are added to a pipeline that runs, and sources that are removed."""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.support.bench import PipelineBench
from tests.support.gated import Gated
from tests.support.threads import PATIENCE, beside, eventually
from tests.test_pauses import Inlet
from tests.test_stage_changes import add, bench_at, held, lock, seconds_of_floats, values_of

from run_task import ConfigError, RunTaskError, TimeSeries, TimeUnit
from run_task.sources import paced


class Feed:
    """A source whose rows a test puts in, and which knows that it was closed."""

    def __init__(self) -> None:
        self.rows = queue.Queue[Any]()
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        try:
            yield from iter(self.rows.get, None)
        finally:
            self.closed.set()

    def close(self) -> None:
        self.rows.put(None)


def stored(bench: PipelineBench, name: str) -> int:
    return bench.pipeline.stats.sources[name].stored


def wait_for(bench: PipelineBench, name: str, rows: int) -> None:
    eventually(lambda: stored(bench, name) == rows)


def test_a_source_that_is_added_is_read_and_one_that_is_removed_is_closed() -> None:
    bench = bench_at(103)
    series = seconds_of_floats()
    bench.stage("a", series, 10)
    inlet = Inlet(bench, series)
    feed = Feed()
    with bench.pipeline:
        inlet.put(103, {"v": 1.0})
        bench.pipeline.source(feed, series, name="feed")
        feed.rows.put((102, {"v": 2.0}))
        eventually(lambda: stored(bench, "feed") == 1)
        bench.advance(7)
        assert bench.sink.wait_for("a", 110)["held"] == [102, 103]
        bench.pipeline.remove("feed")
        assert feed.closed.wait(PATIENCE)
        inlet.put(110, {"v": 1.0})
        bench.advance(10)
        assert bench.sink.wait_for("a", 120)["held"] == [110]
        eventually(lambda: not any("source 2" in t.name for t in threading.enumerate()))
        inlet.end()
    stats = bench.pipeline.stats
    assert (list(stats.sources), stats.rows) == (["inlet", "feed"], (2,))
    assert (stored(bench, "inlet"), stored(bench, "feed")) == (2, 1)
    assert [change.what for change in stats.changes] == [
        "source 'feed' is added",
        "source 'feed' is removed",
    ]
    assert len(bench.pipeline.sources) == 1


def test_counts_of_one_name_go_on() -> None:
    bench = bench_at(103)
    series = seconds_of_floats()
    bench.stage("a", series, 10)
    with bench.pipeline:
        for number in range(1, 4):
            feed = Feed()
            bench.pipeline.source(feed, series, name="feed")
            feed.rows.put((103, {"v": 1.0}))
            wait_for(bench, "feed", number)
            bench.pipeline.remove("feed")
            assert feed.closed.wait(PATIENCE)
    assert bench.pipeline.stats.sources["feed"].received == 3


def test_a_source_that_enters_several_data_comes_and_goes_as_one() -> None:
    bench = bench_at(103)
    one, other = seconds_of_floats(), seconds_of_floats()
    bench.stage("a", one, 10)
    bench.stage("b", other, 10)
    feed = Feed()
    with bench.pipeline:
        bench.pipeline.source(feed, (one, other), name="feed")
        feed.rows.put((103, {"v": 1.0}))
        for name in ("feed[0]", "feed[1]"):
            wait_for(bench, name, 1)
        bench.pipeline.remove("feed")
        assert feed.closed.wait(PATIENCE)
        bench.advance(7)
        for stage in "ab":
            assert bench.sink.wait_for(stage, 110)["held"] == [103]


def test_an_async_source_may_be_added() -> None:
    closed = threading.Event()
    go_on = threading.Event()

    async def rows() -> AsyncIterator[tuple[int, Any]]:
        try:
            yield 103, {"v": 1.0}
            while True:
                await _a_moment()
                if go_on.is_set():
                    return
        finally:
            closed.set()

    bench = bench_at(103)
    series = seconds_of_floats()
    bench.stage("a", series, 10)
    with bench.pipeline:
        bench.pipeline.source(rows(), series, name="feed")
        eventually(lambda: stored(bench, "feed") == 1)
        bench.pipeline.remove("feed")
        assert closed.wait(PATIENCE)


async def _a_moment() -> None:
    import asyncio

    await asyncio.sleep(0.001)


def test_a_new_stage_with_a_source_of_its_own_begins_with_a_whole_window() -> None:
    bench = bench_at(103)
    bench.stage("a", seconds_of_floats(), 10)
    series, feed = seconds_of_floats(), Feed()
    with bench.pipeline:
        bench.stage("b", series, 5)
        bench.pipeline.source(feed, series, name="feed")
        feed.rows.put((103, {"v": 1.0}))
        eventually(lambda: stored(bench, "feed") == 1)
        bench.advance(7)
        bench.sink.wait_for("b", 110)
        bench.pipeline.remove("feed")
    # At 103, the window that ends at 105 has begun before the source did.
    assert [tuple(dataset.window) for dataset in bench.sink.of("b")] == [(105, 110)]


def test_a_pipeline_ends_when_its_sources_do_but_not_when_they_are_removed() -> None:
    bench = bench_at(103)
    series = seconds_of_floats()
    bench.stage("a", series, 10)
    first, second = Feed(), Feed()
    bench.pipeline.source(first, series, name="first")
    with beside(bench.pipeline.run_sync):
        eventually(lambda: bench.pipeline.stats.changes == () and bench.pipeline._run is not None)  # pyright: ignore[reportPrivateUsage]  nothing else tells
        first.rows.put((103, {"v": 1.0}))
        eventually(lambda: stored(bench, "first") == 1)
        bench.pipeline.remove("first")
        assert first.closed.wait(PATIENCE)
        bench.pipeline.source(second, series, name="second")
        second.rows.put((104, {"v": 1.0}))
        second.rows.put((103, {"v": 1.0}))
        second.rows.put(None)
        # It waits for the row that is stamped after the present.
        eventually(lambda: stored(bench, "second") == 1)
        bench.advance(1)
    assert bench.sink.of("a")[-1]["held"] == [103, 103, 104]


@pytest.mark.parametrize("run", range(3))
def test_rows_of_a_source_that_is_added_wait_for_windows_before_them(
    run: int, switching: None
) -> None:
    bench = PipelineBench([values_of])
    data = lock()
    bench.stage("a", data)
    feed = Feed()
    with bench.pipeline:
        bench.pipeline.source(feed, data, add, name="feed")
        for second in range(5):
            feed.rows.put((second, second))
            wait_for(bench, "feed", second + 1)
            bench.advance()
        bench.sink.wait_for("a", 5)
    given = [dataset["values_of"] for dataset in bench.sink.of("a")]
    assert given == [list(range(end)) for end in range(1, 6)]


def test_what_cannot_be_read_now_is_refused_and_changes_nothing() -> None:
    bench = bench_at(103)
    series = seconds_of_floats()
    bench.stage("a", series, 10)
    slow = Gated(110)
    bench.stage("feed", series, 10, tasks=[slow])
    inlet = Inlet(bench, series)
    once = iter([(103, {"v": 1.0})])
    with bench.pipeline:
        wrong: list[tuple[Any, TimeSeries, str, str]] = [
            ([], seconds_of_floats(), "one", "no stage reads"),
            (paced([(1, {"v": 1.0})], unit=TimeUnit.SECONDS), series, "one", "declare it before"),
            (Feed(), series, "inlet", "two sources are called 'inlet'"),
        ]
        for source, into, name, message in wrong:
            with pytest.raises(ConfigError, match=message):
                bench.pipeline.source(source, into, name=name)
        with pytest.raises(ConfigError, match="there is no such stage or source, but 'a', 'feed'"):
            bench.pipeline.remove("x")
        bench.pipeline.source(once, series, name="feed")
        with pytest.raises(ConfigError, match="a stage and a source have this name"):
            bench.pipeline.remove("feed")
        bench.advance(7)
        assert slow.entered.wait(PATIENCE)
        bench.pipeline.shutdown()
        with pytest.raises(RunTaskError, match="pipeline 'bench' ends, and cannot be changed"):
            bench.pipeline.source(Feed(), series)
        inlet.end()
        slow.go_on.set()
    assert len(bench.pipeline.sources) == 2


def test_before_it_runs_a_source_is_taken_out() -> None:
    bench = bench_at(103)
    series = seconds_of_floats()
    bench.stage("a", series, 10, tasks=[held])
    bench.pipeline.source([(103, {"v": 1.0})], series, name="one")
    bench.pipeline.source([(104, {"v": 1.0})], series, name="other")
    bench.pipeline.remove("one")
    assert [dataset["held"] for _, dataset in bench.pipeline.replay()] == [[104]]
    assert list(bench.pipeline.stats.sources) == ["other"]


def test_a_replay_beside_a_run_that_is_changed_has_the_sources_that_there_were() -> None:
    bench = bench_at(103)
    series = seconds_of_floats()
    bench.stage("a", series, 10, tasks=[held])
    bench.pipeline.source([(103, {"v": 1.0})], series, name="one")
    feed = Feed()
    replay = bench.pipeline.replay()
    bench.pipeline.source(feed, series, name="feed")
    with bench.pipeline:
        bench.pipeline.remove("one")
        bench.pipeline.remove("a")
        assert [dataset["held"] for _, dataset in replay] == [[103]]
