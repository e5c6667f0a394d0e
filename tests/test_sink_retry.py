"""Sinks that are away for a time: results wait, are written again in order, and add up."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.support.bench import RecordingSink
from tests.support.databases import postgres
from tests.support.proxy import proxy
from tests.support.threads import PATIENCE, eventually

from run_task import (
    ConfigError,
    DataSet,
    DeadLetter,
    Layout,
    Pipeline,
    PipelineStats,
    Retry,
    RunnerConfig,
    RwLock,
    SinkError,
    SinkStats,
    Stage,
    TaskInterval,
    Then,
    VirtualClock,
    Window,
    task,
)
from run_task.pipeline._refusals import Refusals
from run_task.pipeline._sink_policy import SinkPolicy
from run_task.pipeline.live import _run
from run_task.pipeline.live._sink_thread import SinkThread
from run_task.sinks import CallbackSink, JsonLinesSink, Result, SqlSink

SECOND = TaskInterval.seconds(1)
QUICK = Retry(5, "1ms", "5ms")


@task
def end_of(values: list[int], start: int, end: int) -> int:
    return end


def add(values: list[int], value: int) -> None:
    values.append(value)


class Flaky:
    """A buffering sink that raises as often as it is told to, and loses what it had then.

    :param raises: what it raises, called with ``"write"`` or ``"flush"`` and the number of the call
    """

    def __init__(self, raises: Callable[[str, int], BaseException | None]) -> None:
        self._raises = raises
        self._calls: Counter[str] = Counter()
        self._written: list[Result] = []
        self.flushed: list[int] = []
        self.closed = False

    def _call(self, name: str) -> None:
        self._calls[name] += 1
        if (error := self._raises(name, self._calls[name])) is not None:
            self._written.clear()
            raise error

    def write(self, result: Result, /) -> None:
        self._call("write")
        self._written.append(result)

    def flush(self) -> None:
        self._call("flush")
        self.flushed += [result.window.end for result in self._written]
        self._written.clear()

    def close(self) -> None:
        self.closed = True
        self.flushed += [result.window.end for result in self._written]

    def __repr__(self) -> str:
        return "Flaky()"


class Bench:
    """A pipeline of one stage under a virtual clock, with one sink.

    :param settings: of the RunnerConfig
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = VirtualClock()
        self.pipeline = Pipeline("bench", clock=self.clock)
        data = RwLock[list[int]]([])
        config = RunnerConfig(**settings)
        self.stage: Stage[Any, Any] = self.pipeline.stage("a", [end_of], data, SECOND, config)

    def advance(self, windows: int) -> None:
        self.clock.advance(TaskInterval.seconds(windows))

    @property
    def stats(self) -> PipelineStats:
        return self.pipeline.stats

    def computed(self, windows: int) -> bool:
        return self.stats.stages["a"].ticks == windows


def adds_up(stats: PipelineStats) -> bool:
    return all(
        of.results == of.written + of.refused + of.dropped + of.lost + of.waiting
        for of in stats.sinks.values()
    )


def first_calls(what: str, times: int, error: BaseException) -> Callable[[str, int], Any]:
    return lambda name, number: error if name == what and number <= times else None


@pytest.mark.parametrize("what", ["write", "flush"])
@pytest.mark.parametrize("error", [ConnectionError("gone"), TimeoutError("slow"), OSError("full")])
def test_a_sink_that_was_away_gets_all_results_in_order_with_nothing_said(
    what: str, error: OSError, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    bench.stage.sink(sink := Flaky(first_calls(what, 2, error)))
    with caplog.at_level(logging.INFO), bench.pipeline:
        bench.advance(5)
        eventually(lambda: bench.computed(5))
    assert sink.flushed == [1, 2, 3, 4, 5]
    assert sink.closed
    (of,) = bench.stats.sinks.values()
    assert (of.results, of.written, of.failures, of.lost) == (5, 5, 2, 0)
    assert adds_up(bench.stats)
    told = [r.getMessage() for r in caplog.records if "Flaky" in r.getMessage()]
    assert len(told) == 2  # the second failure is in no record of its own
    assert told[0].startswith("Flaky() raised, and is tried again in ")
    assert told[0].endswith(f"while results wait: {type(error).__name__}: {error}")
    assert told[1].startswith("Flaky() works again, after 2 failures in ")


def test_a_sink_error_of_a_flush_is_tried_again_with_what_was_not_flushed() -> None:
    bench = Bench()
    bench.stage.sink(sink := Flaky(first_calls("flush", 3, SinkError("no connection"))))
    with bench.pipeline:
        bench.advance(5)
        eventually(lambda: bench.computed(5))
    assert sink.flushed == [1, 2, 3, 4, 5]


def test_a_mistake_of_the_program_ends_it_at_once_with_nothing_said() -> None:
    bench = Bench()
    bench.stage.sink(sink := Flaky(first_calls("write", 1, TypeError("no such argument"))))
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.advance(1)
        eventually(lambda: sink.closed)
    (error,) = caught.value.exceptions
    assert isinstance(error, TypeError)
    (of,) = bench.stats.sinks.values()
    assert (of.results, of.lost, of.failures) == (1, 1, 1)


def test_what_is_away_for_longer_than_a_few_seconds_ends_the_pipeline_with_nothing_said() -> None:
    bench = Bench()
    bench.stage.sink(sink := Flaky(first_calls("write", 10**9, ConnectionError("gone"))))
    began = time.monotonic()
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.advance(1)
        eventually(lambda: sink.closed)
    assert 3.0 <= time.monotonic() - began < PATIENCE
    assert [type(error) for error in caught.value.exceptions] == [ConnectionError]


def test_with_a_retry_everything_is_tried_again_but_a_config_error() -> None:
    bench = Bench()
    bench.stage.sink(sink := Flaky(first_calls("write", 4, TypeError("odd"))), retry=QUICK)
    with bench.pipeline:
        bench.advance(3)
        eventually(lambda: bench.computed(3))
    assert sink.flushed == [1, 2, 3]
    bench = Bench()
    bench.stage.sink(
        sink := Flaky(first_calls("write", 1, ConfigError("no such topic"))), retry=QUICK
    )
    with pytest.raises(ExceptionGroup, match="bench") as caught, bench.pipeline:
        bench.advance(1)
        eventually(lambda: sink.closed)
    assert [type(error) for error in caught.value.exceptions] == [ConfigError]


def test_after_the_last_attempt_the_pipeline_ends() -> None:
    bench = Bench()
    bench.stage.sink(sink := Flaky(first_calls("write", 10**9, OSError("gone"))), retry=QUICK)
    with pytest.raises(ExceptionGroup), bench.pipeline:
        bench.advance(2)
        eventually(lambda: sink.closed)
    (of,) = bench.stats.sinks.values()
    assert of.failures == 5
    assert adds_up(bench.stats)
    assert bench.stats.lost == of.lost == of.results


def test_a_result_that_the_sink_never_takes_is_dropped_alone_and_goes_to_the_dead_letters() -> None:
    class Poisoned(RecordingSink):
        def write(self, result: Result, /) -> None:
            if result.window.end == 3:
                raise ValueError("a poison result")
            super().write(result)

    letters: list[tuple[int, str, str]] = []

    def keep(result: Result, reason: str, detail: str) -> None:
        letters.append((result.window.end, reason, detail))

    bench = Bench()
    dropping = Retry(3, "1ms", "2ms", then=Then.DROP)
    bench.stage.sink(sink := Poisoned(), retry=dropping, dead_letters=keep)
    with bench.pipeline:
        bench.advance(5)
        eventually(lambda: bench.computed(5))
    assert {dataset.timestamp for dataset in sink.of("a")} == {1, 2, 4, 5}
    assert letters == [(3, "dropped", "it raised in 3 attempts: ValueError: a poison result")]
    (of,) = bench.stats.sinks.values()
    assert (of.results, of.written, of.dropped, of.failures) == (5, 4, 1, 3)
    assert bench.stats.dropped == 1


def test_what_cannot_be_flushed_is_dropped_after_the_last_attempt_and_the_rest_goes_on() -> None:
    bench = Bench()
    dropping = Retry(3, "1ms", "2ms", then=Then.DROP)
    sink = Flaky(first_calls("flush", 3, OSError("gone")))
    bench.stage.sink(sink, retry=dropping)
    with bench.pipeline:
        bench.advance(2)
        eventually(lambda: bench.stats.dropped)  # a second later
        bench.advance(2)
        eventually(lambda: bench.computed(4))
    assert sink.flushed == [3, 4]
    (of,) = bench.stats.sinks.values()
    assert (of.written, of.dropped) == (2, 2)


def test_windows_go_on_while_a_sink_is_away_and_without_room_its_policy_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_run, "SINK_CAPACITY", 10)
    back = threading.Event()
    dropped = Counter[str]()

    def count(result: Result, reason: str, detail: str) -> None:
        dropped[reason] += 1

    def away(name: str, number: int) -> OSError | None:
        return None if back.is_set() else ConnectionError("gone")

    bench = Bench()
    patient = Retry(None, "1ms", "5ms", then=Then.DROP)
    bench.stage.sink(sink := Flaky(away), retry=patient, dead_letters=count)
    with bench.pipeline:
        bench.advance(1)
        eventually(lambda: next(iter(bench.stats.sinks.values())).failures)
        bench.advance(99)
        eventually(lambda: bench.computed(100))  # none has waited
        (of,) = bench.stats.sinks.values()
        assert of.dropped == 89
        assert adds_up(bench.stats)
        back.set()
        eventually(lambda: sink.flushed)
    assert sink.flushed == list(range(1, 12))
    assert dropped == {"dropped": 89}
    assert bench.stats.dropped == 89


def test_without_room_a_pipeline_ends_where_its_sink_is_to_lose_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_run, "SINK_CAPACITY", 10)
    bench = Bench()
    sink = Flaky(first_calls("write", 10**9, ConnectionError("gone")))
    letters: list[tuple[int, str]] = []

    def keep(result: Result, reason: str, detail: str) -> None:
        letters.append((result.window.end, reason))

    bench.stage.sink(sink, retry=Retry(wait="1ms", longest="1m"), dead_letters=keep)
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.advance(100)
        eventually(lambda: sink.closed)
    (error,) = caught.value.exceptions
    assert str(error) == "Flaky(): it is away, and 10 results wait: no more are kept for it"
    assert isinstance(error.__cause__, ConnectionError)
    assert adds_up(bench.stats)
    (of,) = bench.stats.sinks.values()
    assert of.lost == of.results == 12
    assert sorted(letters) == [(end, "lost") for end in range(1, 13)]


def test_what_waits_when_a_pipeline_gives_up_goes_to_the_dead_letters() -> None:
    before = _of_a_run()
    bench = Bench(shutdown_timeout=0.2)
    sink = Flaky(first_calls("write", 10**9, ConnectionError("gone")))
    letters: list[tuple[int, str]] = []

    def keep(result: Result, reason: str, detail: str) -> None:
        letters.append((result.window.end, reason))

    bench.stage.sink(sink, retry=Retry(wait="1ms", longest="5ms"), dead_letters=keep)
    with pytest.raises(ExceptionGroup, match="failed"), bench.pipeline:
        bench.advance(30)
        eventually(lambda: bench.computed(30))
    eventually(lambda: len(letters) == 30)
    assert sorted(letters) == [(end, "lost") for end in range(1, 31)]
    assert bench.stats.lost == 30
    eventually(lambda: not _of_a_run() - before)


def test_who_waits_for_room_waits_no_more_once_the_sink_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_run, "SINK_CAPACITY", 3)
    at_it, fail = threading.Event(), threading.Event()

    class Hangs(RecordingSink):
        def write(self, result: Result, /) -> None:
            at_it.set()
            assert fail.wait(PATIENCE)
            raise ConnectionError("gone")

    before = set(threading.enumerate())
    bench = Bench(shutdown_timeout=0.3)
    bench.stage.sink(Hangs(), retry=Retry(None, "1ms", "1ms", then=Then.DROP))
    with pytest.raises(ExceptionGroup), bench.pipeline:
        bench.advance(50)
        assert at_it.wait(PATIENCE)
        time.sleep(0.05)
        assert bench.stats.stages["a"].ticks < 10  # as long as it hangs, it is waited for
        fail.set()
        eventually(lambda: bench.computed(50))
    # The thread of a sink that the shutdown gave up ends a moment later.
    eventually(lambda: not _of_a_run() - before)
    assert adds_up(bench.stats)


def _of_a_run() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("run-task bench ")}


def test_a_shutdown_while_a_sink_is_away_takes_its_timeout_and_tells_what_is_lost() -> None:
    bench = Bench(shutdown_timeout=0.3)
    sink = Flaky(first_calls("write", 10**9, ConnectionError("gone")))
    bench.stage.sink(sink, retry=Retry(wait="1ms", longest="20ms"))
    began = time.monotonic()
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.advance(3)
        eventually(lambda: bench.computed(3))
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert any("3 results are not written" in str(error) for error in caught.value.exceptions)
    eventually(lambda: sink.closed)
    eventually(lambda: bench.stats.lost == 3)
    assert adds_up(bench.stats)
    ours = "run-task bench sink"  # its thread, which closed it, has yet to end
    eventually(lambda: not any(t.name.startswith(ours) for t in threading.enumerate()))


@pytest.mark.parametrize("seed", range(5))
def test_counts_add_up_at_any_time_whatever_fails(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "SINK_CAPACITY", 20)
    chance = random.Random(seed)
    refused = set[int]()

    class Moody(Flaky):
        def write(self, result: Result, /) -> None:
            if result.window.end % 17 == 0:
                refused.add(result.window.end)
                raise SinkError("not this one")
            super().write(result)

    def moody(name: str, number: int) -> OSError | None:
        return OSError(name) if chance.random() < 0.3 else None

    letters = Counter[str]()

    def keep(result: Result, reason: str, detail: str) -> None:
        letters[reason] += 1

    bench = Bench()
    sink = Moody(moody)
    dropping = Retry(3, "1ms", "1ms", then=Then.DROP)
    bench.stage.sink(sink, retry=dropping, dead_letters=keep)
    over = threading.Event()
    wrong: list[PipelineStats] = []

    def look() -> None:
        while not over.is_set():
            if not adds_up(stats := bench.stats):
                wrong.append(stats)

    watcher = threading.Thread(target=look)
    watcher.start()
    with bench.pipeline:
        for _ in range(30):
            bench.advance(10)
        eventually(lambda: bench.computed(300))
    over.set()
    watcher.join(PATIENCE)
    assert not wrong
    (of,) = bench.stats.sinks.values()
    assert (of.results, of.waiting, of.lost) == (300, 0, 0)
    assert len(set(sink.flushed)) == of.written
    assert of.refused == len(refused) == letters["refused"] == bench.stats.refused
    assert of.dropped == letters["dropped"] == bench.stats.dropped


def test_a_replay_tries_again_too() -> None:
    pipeline = Pipeline("bench")
    data = RwLock[list[int]]([])
    pipeline.source([(i, i) for i in range(5)], data, add)
    stage = pipeline.stage("a", [end_of], data, SECOND)
    stage.sink(sink := Flaky(first_calls("flush", 2, OSError("gone"))), retry=QUICK)
    assert len(list(pipeline.replay())) == 5
    assert sink.flushed == [1, 2, 3, 4, 5]
    pipeline = Pipeline("bench")
    pipeline.source([(i, i) for i in range(5)], data, add)
    stage = pipeline.stage("a", [end_of], data, SECOND)
    broken = Flaky(first_calls("write", 10**9, OSError("gone")))
    stage.sink(broken, retry=Retry(2, "1ms", "1ms", then=Then.DROP))
    assert len(list(pipeline.replay())) == 5
    assert (pipeline.stats.dropped, broken.flushed) == (5, [])
    pipeline = Pipeline("bench")
    pipeline.source([(i, i) for i in range(5)], data, add)
    stage = pipeline.stage("a", [end_of], data, SECOND)
    stage.sink(Flaky(first_calls("write", 10**9, OSError("gone"))), retry=Retry(2, "1ms", "1ms"))
    with pytest.raises(OSError, match="gone"):
        list(pipeline.replay())


def test_dead_letters_go_to_a_function_to_data_and_to_a_sink(tmp_path: Path) -> None:
    def picky(stage: str, dataset: Any) -> None:
        raise SinkError("not for me")

    kept = RwLock[list[str]]([])

    def keep(to: list[str], letter: DeadLetter) -> None:
        to.append(letter.reason)

    path = tmp_path / "letters.jsonl"
    bench = Bench()
    bench.stage.sink(CallbackSink(picky), dead_letters=(kept, keep))

    def other(stage: str, dataset: Any) -> None:
        raise SinkError("nor for me")

    bench.stage.sink(CallbackSink(other), dead_letters=JsonLinesSink(path))
    with bench.pipeline:
        bench.advance(2)
        eventually(lambda: bench.computed(2))
    with kept.read() as reasons:
        assert reasons == ["refused", "refused"]
    sink = JsonLinesSink(path)
    sink.begin("bench")
    rows = [(row.stage, row.task, row.value) for row in sink.rows()]
    sink.close()
    assert len(rows) == 6
    assert ("CallbackSink(other)", "reason", "refused") in rows
    assert ("CallbackSink(other)", "detail", "nor for me") in rows
    letter: dict[str, Any] = {"stage": "a", "window": (0, 1), "values": {"end_of": 1}, "errors": []}
    assert ("CallbackSink(other)", "row", letter) in rows


def test_what_is_said_of_a_sink_is_said_once() -> None:
    pipeline = Pipeline("bench")
    data = RwLock[list[int]]([])
    one = pipeline.stage("one", [end_of], data, SECOND)
    two = pipeline.stage("two", [end_of], data, SECOND)
    sink = RecordingSink()
    one.sink(sink, retry=QUICK)
    two.sink(sink)
    two.sink(sink, retry=QUICK)
    with pytest.raises(ConfigError, match="a sink has one for all results, so say it once"):
        pipeline.sink(sink, retry=Retry(2))
    wrong: Any = 5
    with pytest.raises(ConfigError, match=r"stage 'two': retry=5: it is a Retry\(\.\.\.\)"):
        two.sink(RecordingSink(), retry=wrong)
    with pytest.raises(ConfigError, match=r"stage 'two': dead_letters=5: it is a function"):
        two.sink(RecordingSink(), dead_letters=5)
    with pytest.raises(ConfigError, match="it is the sink itself"):
        two.sink(sink, dead_letters=sink)


def test_a_sink_that_comes_and_goes_floods_no_log(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    def every_other(name: str, number: int) -> OSError | None:
        return OSError("gone") if name == "write" and number % 2 else None

    bench.stage.sink(sink := Flaky(every_other), retry=Retry(wait="1ms", longest="1ms"))
    with bench.pipeline:
        bench.advance(200)
        eventually(lambda: bench.computed(200))
    assert sink.flushed == list(range(1, 201))
    assert len([r for r in caplog.records if "Flaky" in r.getMessage()]) <= 4


@pytest.mark.parametrize("layout", list(Layout))
def test_a_database_that_is_cut_off_and_comes_back_has_each_window_once(layout: Layout) -> None:
    with postgres() as url, cut_off(url) as (through, cut):
        bench = Bench()
        sink = SqlSink(through, layout=layout)
        bench.stage.sink(sink, retry=Retry(wait="10ms", longest="100ms"))
        with bench.pipeline:
            bench.advance(3)
            eventually(lambda: sole(bench).written == 3)
            cut.set()
            bench.advance(5)
            eventually(lambda: sole(bench).failures >= 2)
            bench.advance(5)
            eventually(lambda: bench.computed(13))  # windows go on
            cut.clear()
            eventually(lambda: sole(bench).written == 13)
        sink = SqlSink(url, layout=layout)
        sink.begin("bench")
        assert sorted(row.value for row in sink.rows()) == list(range(1, 14))
        sink.close()


def sole(bench: Bench) -> SinkStats:
    """What became of the results for the only sink."""
    (of,) = bench.stats.sinks.values()
    return of


@contextmanager
def cut_off(url: str) -> Generator[tuple[str, threading.Event]]:
    """A database's URL through a proxy, and what cuts the connection off while it is set."""
    parts = urlsplit(url)
    cut = threading.Event()
    with proxy((parts.hostname or "", parts.port or 5432), cut) as port:
        user = f"{parts.username}@" if parts.username else ""
        yield urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{port}")), cut


def test_what_was_given_before_is_flushed_once_that_is_told_also_by_a_sink_that_was_away() -> None:
    failed: list[BaseException] = []
    sink = Flaky(first_calls("flush", 3, OSError("gone")))
    thread = SinkThread(sink, SinkPolicy(QUICK), "p", "sink", 10, Refusals(), failed.append)
    thread.start()
    for end in (1, 2, 3):
        thread.write("a", DataSet(Window(end - 1, end), {}))
    flushed = thread.flushed()
    assert flushed.wait(PATIENCE)
    assert sink.flushed == [1, 2, 3]
    assert thread.stats == SinkStats(results=3, written=3, failures=3)
    thread.close()
    assert thread.join(PATIENCE)
    assert not failed


def test_what_is_not_flushed_for_good_is_told_by_nobody() -> None:
    failed: list[BaseException] = []
    sink = Flaky(first_calls("flush", 10**9, OSError("gone")))
    thread = SinkThread(sink, SinkPolicy(QUICK), "p", "sink", 10, Refusals(), failed.append)
    thread.start()
    thread.write("a", DataSet(Window(0, 1), {}))
    flushed = thread.flushed()
    assert thread.join(PATIENCE)
    assert not flushed.is_set()
    assert [str(error) for error in failed] == ["gone"]
    assert thread.stats == SinkStats(results=1, lost=1, failures=5)
