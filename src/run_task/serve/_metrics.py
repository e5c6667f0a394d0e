"""Metrics as Prometheus scrapes them, in its text format: of as many stages as there may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from run_task._version import __version__
from run_task.runner._stats import RunnerStats, ShardState
from run_task.serve._watched import WatchedPipeline

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_MOST_THINGS: Final = 500
"""Of how many stages, sources, sinks or shards of a pipeline there are metrics; of what is more,
none."""

_MOST_GAUGES: Final = 1000
"""Of how many results there are gauges, all in all."""

_FATES: Final = (
    "stored",
    "malformed",
    "rejected",
    "ahead",
    "duplicate",
    "expired",
)

_STATES: Final = tuple(state.value for state in ShardState if state is not ShardState.ENDED)

_NOT_YET: Final = RunnerStats()

_OUTCOMES: Final = ("written", "refused", "dropped", "lost")


class _Family:
    """Metrics of one name.

    :param name: it
    :param kind: ``counter``, ``gauge`` or ``summary``
    :param help_text: what they tell
    """

    def __init__(self, name: str, kind: str, help_text: str) -> None:
        self._lines = [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
        self.name: Final = name

    def add(self, labels: Mapping[str, str], value: float, suffix: str = "") -> None:
        told = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        self._lines.append(f"{self.name}{suffix}{{{told}}} {_number(value)}")

    def lines(self) -> Iterable[str]:
        return self._lines if len(self._lines) > 2 else ()


def exposition(pipelines: Sequence[WatchedPipeline], gauges: frozenset[str]) -> bytes:
    """All metrics, as a text.

    :param pipelines: the pipelines
    :param gauges: the results that are told, each as ``stage/task``; of stages without keys
    """
    about = _Family("run_task_info", "gauge", "The version of run-task")
    about.add({"version": __version__}, 1)
    families = [about]
    for made in (_of_pipelines, _of_stages, _of_sources, _of_sinks, _of_shards):
        families += made(pipelines)
    families += _of_results(pipelines, gauges)
    lines = [line for family in families for line in family.lines()]
    return ("\n".join(lines) + "\n").encode()


def _of_pipelines(pipelines: Sequence[WatchedPipeline]) -> Iterable[_Family]:
    up = _Family("run_task_pipeline_ready", "gauge", "Whether the pipeline is ready: 1 or 0")
    waiting = _Family("run_task_results_waiting", "gauge", "Results that wait for sinks")
    alerts = _Family("run_task_alerts_on", "gauge", "Alerts that are on")
    numbers = _Family(
        "run_task_checkpoints_total", "counter", "Checkpoints, by what became of them"
    )
    saved = _Family(
        "run_task_last_checkpoint_timestamp_seconds",
        "gauge",
        "When the last checkpoint was written, since the Unix epoch",
    )
    behind = _Family(
        "run_task_checkpoint_behind_seconds", "gauge", "For how long a checkpoint has been due"
    )
    for watched in pipelines:
        labels = {"pipeline": watched.name}
        up.add(labels, 0 if watched.unready() else 1)
        waiting.add(labels, watched.stats.waiting)
        alerts.add(labels, len(watched.alarms.told))
        if (made := watched.stats.checkpoints) is not None:
            for outcome in ("written", "skipped", "failed"):
                numbers.add({**labels, "outcome": outcome}, getattr(made, outcome))
            behind.add(labels, made.seconds_behind)
        if (now := watched.checkpoints.told) is not None and now.last_ms is not None:
            saved.add(labels, now.last_ms / 1e3)
    return up, waiting, alerts, numbers, saved, behind


def _of_stages(pipelines: Sequence[WatchedPipeline]) -> Iterable[_Family]:
    ticks = _Family("run_task_ticks_total", "counter", "Windows that gave a DataSet")
    missed = _Family("run_task_windows_missed_total", "counter", "Windows that gave no DataSet")
    empty = _Family("run_task_windows_empty_total", "counter", "Windows left out, since empty")
    dropped = _Family("run_task_datasets_dropped_total", "counter", "DataSets that were lost")
    errors = _Family("run_task_task_errors_total", "counter", "Results that are missing")
    paused = _Family("run_task_stage_paused", "gauge", "Whether the stage is paused: 1 or 0")
    newest = _Family(
        "run_task_last_window_end_timestamp_seconds",
        "gauge",
        "The end of the newest window that gave a DataSet, since the Unix epoch",
    )
    lateness = _Family(
        "run_task_tick_lateness_seconds",
        "summary",
        "How late windows began: quantiles of the latest 4096, sum and count of all",
    )
    duration = _Family(
        "run_task_tick_duration_seconds",
        "summary",
        "How long the tasks of a window took: quantiles of the latest 4096, sum and count of all",
    )
    for watched, name, part in _each(pipelines, "stages"):
        labels = {"pipeline": watched.name, "stage": name}
        ticks.add(labels, part.windows)
        missed.add(labels, part.missed)
        empty.add(labels, part.empty)
        dropped.add(labels, part.dropped)
        errors.add(labels, part.failed)
        paused.add(labels, part.paused)
        if part.end_ms is not None:
            newest.add(labels, part.end_ms / 1e3)
        done = watched.stats.stages.get(name, _NOT_YET)
        for family, spread in ((lateness, done.lateness), (duration, done.duration)):
            for quantile, value in (("0.5", spread.p50), ("0.99", spread.p99), ("1", spread.max)):
                family.add({**labels, "quantile": quantile}, value)
            family.add(labels, spread.total, "_sum")
            family.add(labels, done.ticks, "_count")
    return ticks, missed, empty, dropped, errors, paused, newest, lateness, duration


def _of_sources(pipelines: Sequence[WatchedPipeline]) -> Iterable[_Family]:
    received = _Family("run_task_rows_received_total", "counter", "Rows that a source has given")
    rows = _Family("run_task_rows_total", "counter", "Rows, by what became of them")
    late = _Family("run_task_rows_late_total", "counter", "Rows that came after their window")
    unseen = _Family("run_task_rows_unseen_total", "counter", "Rows that no window has seen")
    lost = _Family("run_task_rows_dropped_total", "counter", "Rows that a source could not keep")
    waiting = _Family("run_task_rows_waiting", "gauge", "Rows that have not entered yet")
    came = _Family(
        "run_task_last_row_timestamp_seconds",
        "gauge",
        "When the last row of a source was seen to have come, since the Unix epoch",
    )
    connected = _Family("run_task_source_connected", "gauge", "Whether a source is connected")
    lag = _Family("run_task_source_lag_rows", "gauge", "How many rows a source is behind")
    restarts = _Family("run_task_source_restarts_total", "counter", "Starts after a failure")
    for watched, name, part in _each(pipelines, "sources"):
        labels = {"pipeline": watched.name, "source": name}
        received.add(labels, part.received)
        for fate in _FATES:
            rows.add({**labels, "fate": fate}, getattr(part, fate))
        late.add(labels, part.late)
        unseen.add(labels, part.unseen)
        lost.add(labels, part.dropped)
        waiting.add(labels, part.waiting)
        restarts.add(labels, part.restarts)
        if part.last_row_ms is not None:
            came.add(labels, part.last_row_ms / 1e3)
        if part.connected is not None:
            connected.add(labels, part.connected)
        if part.lag is not None:
            lag.add(labels, part.lag)
    return received, rows, late, unseen, lost, waiting, came, connected, lag, restarts


def _of_sinks(pipelines: Sequence[WatchedPipeline]) -> Iterable[_Family]:
    results = _Family("run_task_results_total", "counter", "Results, by what became of them")
    failures = _Family("run_task_sink_failures_total", "counter", "How often a sink has raised")
    waiting = _Family("run_task_sink_waiting", "gauge", "Results that wait to be written")
    for watched, name, part in _each(pipelines, "sinks"):
        labels = {"pipeline": watched.name, "sink": name}
        for outcome in _OUTCOMES:
            results.add({**labels, "outcome": outcome}, getattr(part, outcome))
        failures.add(labels, part.failures)
        waiting.add(labels, part.waiting)
    return results, failures, waiting


def _of_shards(pipelines: Sequence[WatchedPipeline]) -> Iterable[_Family]:
    about = _Family("run_task_shard_info", "gauge", "On which node a shard runs")
    states = _Family("run_task_shard_state", "gauge", "How it is with a shard: 1 for its state")
    keys = _Family("run_task_shard_keys", "gauge", "Keys of the last window of a shard")
    rows = _Family("run_task_shard_rows_total", "counter", "Rows that a shard was sent")
    windows = _Family("run_task_shard_windows_total", "counter", "Windows that a shard has run")
    results = _Family("run_task_shard_results_total", "counter", "Results that a shard has given")
    restarts = _Family("run_task_shard_restarts_total", "counter", "Starts after it was gone")
    took = _Family(
        "run_task_shard_window_duration_seconds",
        "gauge",
        "How long a shard took over its last window, with the way there and back",
    )
    missed = _Family(
        "run_task_shard_windows_behind", "gauge", "Windows that went without a shard so far"
    )
    behind = _Family("run_task_shard_behind_seconds", "gauge", "For how long it is waited for")
    for watched, name, part in _each(pipelines, "shards"):
        labels = {"pipeline": watched.name, "shard": name}
        if part.node is not None:
            about.add({**labels, "node": part.node}, 1)
        for state in _STATES:
            states.add({**labels, "state": state}, part.state == state)
        keys.add(labels, part.keys)
        rows.add(labels, part.rows)
        windows.add(labels, part.windows)
        results.add(labels, part.results)
        restarts.add(labels, part.restarts)
        took.add(labels, part.seconds)
        missed.add(labels, part.windows_behind)
        behind.add(labels, part.seconds_behind)
    return about, states, keys, rows, windows, results, restarts, took, missed, behind


def _of_results(pipelines: Sequence[WatchedPipeline], gauges: frozenset[str]) -> Iterable[_Family]:
    family = _Family("run_task_result", "gauge", "The newest result of a task")
    left = _MOST_GAUGES
    for watched, name, part in _each(pipelines, "stages"):
        for task, number in part.numbers.items():
            if number is not None and left and f"{name}/{task}" in gauges:
                left -= 1
                family.add({"pipeline": watched.name, "stage": name, "task": task}, number)
    return (family,)


def _each(
    pipelines: Sequence[WatchedPipeline], what: str
) -> Iterator[tuple[WatchedPipeline, str, Any]]:
    for watched in pipelines:
        parts: Mapping[str, Any] = getattr(watched, what)
        for name, part in list(parts.items())[:_MOST_THINGS]:
            yield watched, name, part.told


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))
