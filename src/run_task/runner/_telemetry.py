"""What OpenTelemetry is told of a runner, in a program that has set it up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from run_task._version import __version__
from run_task.observe._log import Log
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet
from run_task.time._clock import Clock

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Span, Tracer

SCOPE: Final = "run_task"
"""The instrumentation scope, and what every name begins with."""

TASK_SPAN_FROM: Final = 0.001
"""How many seconds a task has to take to be worth a span: a span costs some thirty microseconds, so
tracing adds a few hundredths at most."""

BOUNDARIES: Final = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Of the histograms' buckets, in seconds: a tick takes from microseconds on."""

_MOST_EXCEPTIONS: Final = 100
"""How many errors of one tick a span has, at most: by key there may be thousands."""

Send = Callable[[AnyDataSet], None]


class Losses(NamedTuple):
    """How many windows and DataSets did not arrive, up to now."""

    missed: int
    dropped: int


class Telemetry:
    """Tells OpenTelemetry of each tick, once its DataSet is sent.

    :param runner: the runner's name
    :param clock: where the runner reads the time
    :param losses: tells how much has been lost; None: it is a replay, which loses nothing, and has
        no lateness
    :param tracer: who takes spans
    :param meter: who takes counts and times
    """

    def __init__(
        self,
        runner: str,
        clock: Clock,
        losses: Callable[[], Losses] | None,
        tracer: Tracer,
        meter: Meter,
    ) -> None:
        from opentelemetry import context, trace

        self._runner = runner
        self._about: dict[str, str | bool] = {"run_task.runner": runner}
        if losses is None:
            self._about["run_task.replay"] = True
        self._clock = clock
        self._losses = losses
        self._told = Losses(0, 0)
        self._log = Log(__name__, runner)
        self._broken = False
        self._tracer = tracer
        self._api = trace
        self._root = context.Context()  # a tick is a trace of its own
        self._ticks = meter.create_counter(
            "run_task.ticks", "{tick}", "Windows that gave a DataSet"
        )
        self._missed = meter.create_counter(
            "run_task.windows.missed", "{window}", "Windows that gave no DataSet"
        )
        self._dropped = meter.create_counter(
            "run_task.datasets.dropped", "{dataset}", "DataSets that were lost in the channel"
        )
        self._errors = meter.create_counter(
            "run_task.task.errors", "{error}", "Tasks that gave no result for a window"
        )
        self._duration = meter.create_histogram(
            "run_task.tick.duration",
            "s",
            "How long a tick's tasks took together",
            explicit_bucket_boundaries_advisory=BOUNDARIES,
        )
        self._lateness = meter.create_histogram(
            "run_task.tick.lateness",
            "s",
            "How long after the end of its window, and its grace, a tick began",
            explicit_bucket_boundaries_advisory=BOUNDARIES,
        )

    @classmethod
    def if_set_up(
        cls, runner: str, clock: Clock, losses: Callable[[], Losses] | None
    ) -> Telemetry | None:
        """None where the program has no OpenTelemetry, or has not set it up.

        A program that sets it up has imported it, so nothing is imported here that is not there.
        """
        if "opentelemetry" not in sys.modules:
            return None
        try:
            from opentelemetry import metrics, trace
        except ImportError:
            return None  # it was another part of the namespace
        tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
        if _does_nothing(tracers) and _does_nothing(meters):
            return None
        # What is not set up is told nothing, also if it is set up later: half of it would be
        # missing.
        if _does_nothing(tracers):
            tracers = trace.NoOpTracerProvider()
        if _does_nothing(meters):
            meters = metrics.NoOpMeterProvider()
        tracer, meter = tracers.get_tracer(SCOPE, __version__), meters.get_meter(SCOPE, __version__)
        return cls(runner, clock, losses, tracer, meter)

    def telling(self, send: Send) -> Send:
        """A function that sends a DataSet, and tells of it."""

        def send_and_tell(dataset: AnyDataSet) -> None:
            ended_ns = self._clock.time_ns()  # sending it may take long
            send(dataset)
            self._guarded(lambda: self._tell(dataset, ended_ns))

        return send_and_tell

    def close(self) -> None:
        """Tell of what was lost in the end."""
        self._guarded(self._tell_losses)

    def _guarded(self, tell: Callable[[], None]) -> None:
        """An exception of the metrics library must not reach the runner."""
        if self._broken:
            return
        try:
            tell()
        except Exception as error:
            self._broken = True
            self._log.error("%s: OpenTelemetry gets nothing more: %r", self._runner, error)

    def _tell(self, dataset: AnyDataSet, ended_ns: int) -> None:
        self._ticks.add(1, self._about)
        self._duration.record(dataset.took, self._about)
        if self._losses is not None:
            self._lateness.record(dataset.lateness, self._about)
        for error in dataset.errors.values():
            kind = type(error.__cause__ or error).__qualname__
            self._errors.add(1, {**self._about, "run_task.task": error.task, "error.type": kind})
        self._tell_losses()
        self._trace(dataset, ended_ns)

    def _tell_losses(self) -> None:
        if self._losses is None:
            return
        before, self._told = self._told, self._losses()
        if missed := self._told.missed - before.missed:
            self._missed.add(missed, self._about)
        if dropped := self._told.dropped - before.dropped:
            self._dropped.add(dropped, self._about)

    def _trace(self, dataset: AnyDataSet, ended_ns: int) -> None:
        """A span of the tick, after the fact, and of each task that took long."""
        begun_ns = ended_ns - round(dataset.took * 1e9)
        span = self._tracer.start_span(
            f"tick {self._runner}",
            self._root,
            start_time=begun_ns,
            attributes={
                **self._about,
                "run_task.window.start": dataset.window.start,
                "run_task.window.end": dataset.window.end,
                **({} if self._losses is None else {"run_task.tick.lateness": dataset.lateness}),
            },
        )
        if span.is_recording():
            # By key, tasks take turns, so that a span of one would tell nothing.
            if dataset.took >= TASK_SPAN_FROM and isinstance(dataset, DataSet):
                self._trace_tasks(dataset, span, begun_ns)
            errors = list(dataset.errors.values())
            for error in errors[:_MOST_EXCEPTIONS]:
                about = {"run_task.task": error.task}
                if error.key is not None:
                    about["run_task.key"] = str(error.key)
                span.record_exception(error, about, ended_ns)
            if errors:
                told = f"no result of {', '.join(dict.fromkeys(e.task for e in errors))}"
                span.set_status(self._api.StatusCode.ERROR, told)
        span.end(ended_ns)

    def _trace_tasks(self, dataset: DataSet[Any], tick: Span, begun_ns: int) -> None:
        within = self._api.set_span_in_context(tick, self._root)
        starts = dataset.starts
        for task, seconds in dataset.durations.items():
            if seconds < TASK_SPAN_FROM:
                continue
            start_ns = begun_ns + round(starts[task] * 1e9)
            span = self._tracer.start_span(
                f"task {task}",
                within,
                start_time=start_ns,
                attributes={**self._about, "run_task.task": task},
            )
            if task in dataset.errors:
                span.set_status(self._api.StatusCode.ERROR, str(dataset.errors[task]))
            span.end(start_ns + round(seconds * 1e9))


def meter_if_set_up() -> Meter | None:
    """Who takes counts; None where the program has no OpenTelemetry, or has not set it up."""
    if "opentelemetry" not in sys.modules:
        return None
    try:
        from opentelemetry import metrics
    except ImportError:
        return None  # it was another part of the namespace
    meters = metrics.get_meter_provider()
    return None if _does_nothing(meters) else meters.get_meter(SCOPE, __version__)


def _does_nothing(provider: object) -> bool:
    """Whether it is one of the API's own, which stand in the place of a real one."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))
