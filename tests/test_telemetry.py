"""What OpenTelemetry is told, read with the SDK's in-memory exporters."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode
from tests.support.threads import PATIENCE, eventually

from run_task import (
    ContextBuilder,
    DataSet,
    MissedTick,
    Overflow,
    Pipeline,
    Runner,
    RunnerConfig,
    RwLock,
    SinkError,
    TaskInterval,
    VirtualClock,
    task,
)
from run_task.runner._telemetry import Losses, Telemetry
from run_task.sinks import CallbackSink

SECOND = TaskInterval.seconds(1)
GUIDE = Path(__file__).parent.parent / "docs" / "how-to" / "metrics.md"


@task
def quick(data: list[float], start: int, end: int) -> int:
    return len(data)


@task
def fails(data: list[float], start: int, end: int) -> int:
    raise ValueError("no good")


@task
def slow(data: list[float], start: int, end: int) -> int:
    until = time.perf_counter() + 0.004
    while time.perf_counter() < until:
        pass
    return 1


class Told:
    """What has been told."""

    def __init__(self, spans: InMemorySpanExporter, reader: InMemoryMetricReader) -> None:
        self._spans = spans
        self._reader = reader

    def ticks(self) -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.parent is None]

    def tasks(self, tick: ReadableSpan) -> list[ReadableSpan]:
        """The spans within a tick's."""
        assert tick.context is not None
        within = tick.context.span_id
        spans = self._spans.get_finished_spans()
        return [span for span in spans if span.parent is not None and span.parent.span_id == within]

    def points(self, metric: str) -> list[Any]:
        """The data points of a metric; none if nothing was told."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for found in scope.metrics
            if found.name == metric
            for point in found.data.data_points
        ]

    def count(self, metric: str, **attributes: str) -> float:
        """The count of a metric, over all that has these attributes."""
        wanted = {f"run_task.{name}": value for name, value in attributes.items()}
        found: list[float] = [
            point.value
            for point in self.points(metric)
            if wanted.items() <= point.attributes.items()
        ]
        return sum(found)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """An SDK, as if the program had set it up: for good can be done only once in a process."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters)
    return Told(exporter, reader)


def run(
    tasks: Iterable[Any], windows: int = 1, clock: VirtualClock | None = None, **settings: Any
) -> list[DataSet[Any]]:
    """Windows of a second, one after the other."""
    clock = clock or VirtualClock(100 * 10**9)
    context, receiver, _ = (
        ContextBuilder(list[float])
        .with_tasks(tasks)
        .with_interval(SECOND)
        .with_config(RunnerConfig(**settings))
        .build()
    )
    datasets: list[DataSet[Any]] = []
    with Runner(context, clock=clock):
        for _ in range(windows):
            clock.advance(SECOND)
            datasets.append(receiver.recv(PATIENCE))
    return datasets


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def test_ticks_are_counted_and_timed_by_runner(told: Told) -> None:
    datasets = run([quick, slow], 3, name="prices")
    run([quick], 2, name="features")
    assert told.count("run_task.ticks", runner="prices") == 3
    assert told.count("run_task.ticks", runner="features") == 2
    (point,) = [
        point
        for point in told.points("run_task.tick.duration")
        if point.attributes == {"run_task.runner": "prices"}
    ]
    assert point.count == 3
    assert point.sum == pytest.approx(sum(dataset.took for dataset in datasets))
    assert point.min >= 0.004
    assert len(point.explicit_bounds) > 10
    assert point.explicit_bounds[0] < 1e-4
    assert told.points("run_task.windows.missed") == []
    assert told.points("run_task.task.errors") == []


def test_lateness_is_timed(told: Told) -> None:
    clock = VirtualClock(100 * 10**9)
    context, receiver, _ = (
        ContextBuilder(list[float]).with_task(quick).with_interval(SECOND).build()
    )
    with Runner(context, clock=clock):
        clock.advance(TaskInterval.millis(3_250))
        for _ in range(3):
            receiver.recv(PATIENCE)
    (point,) = told.points("run_task.tick.lateness")
    assert (point.count, point.sum) == (3, pytest.approx(2.25 + 1.25 + 0.25))


def test_errors_are_counted_by_task_and_type(told: Told) -> None:
    run([quick, fails], 2)
    (point,) = told.points("run_task.task.errors")
    assert point.value == 2
    assert point.attributes == {
        "run_task.runner": "runner",
        "run_task.task": "fails",
        "error.type": "ValueError",
    }


def test_a_replay_tells_its_ticks_and_errors_but_no_lateness(told: Told) -> None:
    @task
    def inverse(prices: list[float], start: int, end: int) -> float:
        return 1 / (start - 102)

    pipeline = Pipeline("history")
    data = RwLock[list[float]]([])
    pipeline.source(
        [(second, 1.0) for second in range(100, 110)],
        into=data,
        ingest=lambda data, row: data.append(row),
    )
    pipeline.stage("seconds", [quick, inverse], data, SECOND)
    datasets = [dataset for _, dataset in pipeline.replay()]
    about = {"run_task.runner": "seconds", "run_task.replay": True}
    (ticks,) = told.points("run_task.ticks")
    assert (ticks.attributes, ticks.value) == (about, 10)
    assert told.count("run_task.task.errors", runner="seconds", task="inverse") == 1
    (duration,) = told.points("run_task.tick.duration")
    assert duration.sum == pytest.approx(sum(dataset.took for dataset in datasets))
    assert told.points("run_task.tick.lateness") == []
    spans = told.ticks()
    assert [attributes(span)["run_task.window.start"] for span in spans] == [*range(100, 110)]
    assert all("run_task.tick.lateness" not in attributes(span) for span in spans)
    # A span lies where the replay was, and not where its rows are.
    assert all((span.start_time or 0) > 10**18 for span in spans)


@pytest.mark.parametrize("live", [False, True])
def test_what_becomes_of_rows_is_counted_by_source(told: Told, live: bool) -> None:
    pipeline = Pipeline("history")
    data = RwLock[list[float]]([])
    rows: Any = [(100, 1.0), (102, 1.0), 5, (101, 1.0), (103, 1.0)]
    pipeline.source(rows, data, lambda data, row: data.append(row), name="mine")
    pipeline.stage("seconds", [quick], data, SECOND)
    if live:
        pipeline.run_sync()
    else:
        list(pipeline.replay())
    about = {"pipeline": "history", "source": "mine"}
    (counts,) = pipeline.stats.sources.values()
    assert (counts.received, counts.malformed) == (5, 1)
    for name, value in vars(counts).items():
        assert told.count(f"run_task.rows.{name}", **about) == value


def test_what_becomes_of_results_is_counted_by_sink(told: Told) -> None:
    reasons = iter(["not this one"])

    def picky(stage: str, dataset: DataSet[Any]) -> None:
        for reason in reasons:
            raise SinkError(reason)

    pipeline = Pipeline("history")
    data = RwLock[list[float]]([])
    pipeline.source([(t, 1.0) for t in range(100, 105)], data, lambda data, row: data.append(row))
    pipeline.stage("seconds", [quick], data, SECOND).sink(CallbackSink(picky))
    pipeline.run_sync()
    ((name, counts),) = pipeline.stats.sinks.items()
    assert (name, counts.refused) == ("CallbackSink(picky)", 1)
    for field, value in vars(counts).items():
        if field not in ("waiting", "spooled"):
            assert told.count(f"run_task.sink.{field}", pipeline="history", sink=name) == value


def test_windows_that_are_missed_are_counted(told: Told) -> None:
    context, receiver, _ = (
        ContextBuilder(list[float])
        .with_task(quick)
        .with_interval(SECOND)
        .with_config(RunnerConfig(missed_tick=MissedTick.SKIP))
        .build()
    )
    clock = VirtualClock()
    runner = Runner(context, clock=clock)
    with runner:
        clock.advance(SECOND)
        receiver.recv(PATIENCE)
        clock.advance(TaskInterval.seconds(5))
        receiver.recv(PATIENCE)
    assert runner.stats.missed == 4
    assert told.count("run_task.windows.missed") == 4


def test_datasets_that_are_dropped_are_counted(told: Told) -> None:
    context, receiver, _ = (
        ContextBuilder(list[float])
        .with_task(quick)
        .with_interval(SECOND)
        .with_channel(1, Overflow.DROP_NEWEST)
        .build()
    )
    clock = VirtualClock()
    with Runner(context, clock=clock) as runner:
        clock.advance(TaskInterval.seconds(3))
        eventually(lambda: runner.stats.ticks == 3)
    assert told.count("run_task.datasets.dropped") == receiver.dropped == 2


def test_a_tick_is_a_span_with_its_window(told: Told) -> None:
    (dataset,) = run([quick], name="prices")
    (span,) = told.ticks()
    assert span.name == "tick prices"
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span) == {
        "run_task.runner": "prices",
        "run_task.window.start": 100,
        "run_task.window.end": 101,
        "run_task.tick.lateness": 0.0,
    }
    # By the runner's clock, which stands at the end of the window.
    assert span.end_time == 101 * 10**9
    assert span.start_time == 101 * 10**9 - round(dataset.took * 1e9)


@pytest.mark.parametrize(
    ("executor", "workers"), [("inline", 1), ("threads", 1), ("threads", 2), ("processes", 2)]
)
def test_tasks_that_take_long_are_spans_within_it(told: Told, executor: Any, workers: int) -> None:
    tasks = [quick, slow, run_again(slow, "slower"), run_again(slow, "slowest")]
    # From the second dear tick on, threads have helpers.
    datasets = run(tasks, 4, executor=executor, workers=workers)
    for tick, dataset in zip(told.ticks(), datasets, strict=True):
        parts = told.tasks(tick)
        # On a busy machine the quick one may take long as well.
        long = [name for name, seconds in dataset.durations.items() if seconds >= 0.001]
        assert [part.name for part in parts] == [f"task {name}" for name in long]
        assert long[-3:] == ["slow", "slower", "slowest"]
        for part in parts:
            name = attributes(part)["run_task.task"]
            assert tick.start_time is not None
            assert part.start_time is not None
            assert part.end_time is not None
            began = (part.start_time - tick.start_time) / 1e9
            assert began == pytest.approx(dataset.starts[name], abs=1e-8)
            assert part.end_time - part.start_time == round(dataset.durations[name] * 1e9)
            assert 0 <= began <= dataset.took - dataset.durations[name] + 1e-6
    if workers == 1:
        # One after the other.
        for dataset in datasets:
            ends = [dataset.starts[name] + dataset.durations[name] for name in dataset]
            begins = [dataset.starts[name] for name in dataset]
            assert all(end <= begin + 1e-9 for end, begin in zip(ends, begins[1:]))


def run_again(like: Any, name: str) -> Any:
    return task(name=name)(like.run)


def test_a_tick_with_errors_has_them_in_its_span(told: Told) -> None:
    run([quick, fails])
    (span,) = told.ticks()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "no result of fails"
    (event,) = span.events
    assert event.attributes is not None
    assert event.attributes["run_task.task"] == "fails"
    assert "no good" in str(event.attributes["exception.stacktrace"])


def test_a_sampler_may_leave_ticks_out(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider(sampler=ALWAYS_OFF)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    run([slow, fails], 2)
    assert exporter.get_finished_spans() == ()
    assert told.count("run_task.ticks") == 2


def test_only_what_is_set_up_is_told(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    tracers, exporter = TracerProvider(), InMemorySpanExporter()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    run([quick])
    assert len(exporter.get_finished_spans()) == 1
    assert told.points("run_task.ticks") == []


class _Broken(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        raise AssertionError  # never reached: the processor breaks before

    def shutdown(self) -> None: ...


class _BreaksOnEnd(SimpleSpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise OSError("no disk")


def test_a_fault_of_it_costs_no_window(
    told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(_BreaksOnEnd(_Broken()))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    assert [dataset["quick"] for dataset in run([quick], 3)] == [0, 0, 0]
    assert [record.getMessage() for record in caplog.records] == [
        "runner: OpenTelemetry gets nothing more: OSError('no disk')"
    ]
    assert told.count("run_task.ticks") == 1


def test_nobody_is_told_where_nothing_is_set_up() -> None:
    # The API is there, since this module imports it, and has providers that do nothing.
    assert Telemetry.if_set_up("runner", VirtualClock(), lambda: Losses(0, 0)) is None


def test_a_runner_imports_none_of_it() -> None:
    script = (
        "import sys, run_task as r\n"
        "c, receiver, _ = r.ContextBuilder(list).with_task("
        "r.Task(lambda d, s, e: 1, 'one')).with_interval(r.TaskInterval.millis(1)).build()\n"
        "with r.Runner(c): receiver.recv(10)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_prometheus_gets_it_as_the_guide_says(tmp_path: Path) -> None:
    guide, _, _ = GUIDE.read_text().partition("## What a service has")  # names of its own
    found = re.search(r'```python title="serve.py"\n(.*?)```', guide, re.DOTALL)
    assert found is not None
    queried = set(re.findall(r"\(?(run_task_[a-z_]+_(?:total|bucket))\b", guide))
    assert len(queried) == 5
    script = tmp_path / "guide.py"
    script.write_text(
        re.sub(
            "(?m)^start_http_server.*", "server, _ = start_http_server(0, '127.0.0.1')", found[1]
        )
        + "import urllib.request\n"
        + "address = f'http://127.0.0.1:{server.server_port}/metrics'\n"
        + "print('fetched:', urllib.request.urlopen(address).read().decode())\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, timeout=60
    )
    fetched = done.stdout.partition("fetched: ")[2]
    (line,) = re.findall(r"^run_task_ticks_total\{.*", fetched, re.MULTILINE)
    assert 'run_task_runner="prices"' in line
    assert float(line.split()[-1]) >= 4
    assert "run_task_tick_lateness_seconds_bucket" in fetched
    # What does not happen here has the names that the SDK gives such counters, all the same.
    assert queried == {
        "run_task_windows_missed_total",
        "run_task_datasets_dropped_total",
        "run_task_ticks_total",
        "run_task_task_errors_total",
        "run_task_tick_lateness_seconds_bucket",
    }
