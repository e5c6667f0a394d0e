"""A report of results as a page of HTML that needs nothing else: over time, with what became of
rows, how long tasks took, and what they failed by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from run_task._version import __version__
from run_task.errors import ConfigError
from run_task.observe._format import brief, shown
from run_task.observe._report_page import framed, report_page
from run_task.pipeline._archive import end_ms, numbers_of
from run_task.pipeline._failures import Failures
from run_task.pipeline._over_keys import numbers_by_key, spread
from run_task.pipeline._thinned import ThinnedSeries
from run_task.pipeline.replay._replay import Replay, ReplaySummary
from run_task.runner._stats import SourceStats
from run_task.tasks._collect import DataSets, KeyedDataSets
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.time._calendar import Interval
from run_task.time._shown import time_shown, zone_of

_MOST_CHARTS: Final = 30
"""How many charts of a stage there are at most."""

_MOST_KEYS: Final = 10
"""How many keys can be told apart in a chart."""

_MOST_FAILURES: Final = 100

_ROWS_COUNTED: Final = 1000
"""About how often rows are counted while the windows double."""

_FATES: Final = tuple(
    kind
    for kind in SourceStats.__dataclass_fields__
    if kind not in ("received", "waiting", "restarts")
)
"""What may become of rows, as counts of them."""


class HtmlReport:
    """A report, as one file of HTML. A notebook shows it in a frame.

    :param html: the file
    """

    __slots__ = ("html",)

    def __init__(self, html: str) -> None:
        self.html: str = html
        """It opens in any browser, and loads nothing."""

    def save(self, path: str | Path) -> None:
        """Write the file; one that is there is replaced.

        :param path: where
        :raises OSError: if it cannot be written
        """
        Path(path).write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        return framed(self.html)

    def __repr__(self) -> str:
        return f"<HtmlReport of {len(self.html):,} characters: save(path) writes it>"


def report(
    results: Replay
    | DataSets[Any]
    | KeyedDataSets[Any, Any]
    | Mapping[str, Iterable[AnyDataSet]]
    | Iterable[AnyDataSet],
    *,
    title: str = "Report",
    keys: Iterable[Any] = (),
) -> HtmlReport:
    """Make a report of results::

        report(pipeline.replay(), title="November").save("november.html")

    Each number that tasks gave has a chart: of more than some thousand windows, the least and the
    greatest of each part. Of a stage by key, it shows the lowest, the median and the highest of
    all keys, and the keys that are asked for. A replay is run to its end, and closed; of it, the
    fates of rows are told, too, and charts of them over time: how many rows of each source had
    which fate by then. Sources are read ahead of windows, and so these may come in steps.

    :param results: a replay, DataSets of one stage, or those of several by their names
    :param title: what stands above it
    :param keys: keys that have a line of their own, ten at most
    :raises ConfigError: if results are none of these, or there are more keys
    """
    if isinstance(results, Replay):
        draft = ReportDraft(keys, results)
        with results:
            for stage, dataset in results:
                draft.note(stage, dataset)
        return draft.made(title)
    draft = ReportDraft(keys)
    named = isinstance(results, Mapping)
    by_stage = cast("Mapping[str, Iterable[Any]]", results if named else {"results": results})
    for stage, dataset in _each(by_stage):
        draft.note(stage, dataset)
    return draft.made(title)


def _each(by_stage: Mapping[str, Iterable[Any]]) -> Iterator[tuple[str, AnyDataSet]]:
    for stage, datasets in by_stage.items():
        for dataset in datasets:
            if not isinstance(dataset, DataSet | KeyedDataSet):
                raise ConfigError(
                    f"report(): {brief(dataset)} is no DataSet: give a replay, DataSets, or a "
                    f"mapping of them by stage"
                )
            yield stage, dataset


@dataclass(slots=True)
class _OfTask:
    results: int = 0
    errors: int = 0
    ran: int = 0
    seconds: float = 0.0
    longest: float = 0.0


@dataclass(slots=True)
class _OfStage:
    """What is known of a stage."""

    interval: Interval | None
    by: str | None
    windows: int = 0
    first: int = 0
    last: int = 0
    tasks: dict[str, _OfTask] = field(default_factory=dict[str, _OfTask])
    numbers: ThinnedSeries = field(default_factory=ThinnedSeries)
    took: ThinnedSeries = field(default_factory=ThinnedSeries)


class ReportDraft:
    """Takes results one after another, in bounded memory, and makes a report of them.

    :param keys: keys that have a line of their own
    :param replay: where the results come from, which tells of rows; None: nobody does
    :raises ConfigError: if there are more than can be told apart
    """

    def __init__(self, keys: Iterable[Any] = (), replay: Replay | None = None) -> None:
        self._replay = replay
        self._rows: dict[str, ThinnedSeries] = {}  # by source
        self._rows_until = -math.inf
        self._until_rows = 0  # so many windows until rows are counted again
        self._keys = list(dict.fromkeys(keys))
        if len(self._keys) > _MOST_KEYS:
            raise ConfigError(
                f"report(keys=...): {len(self._keys)} keys, and {_MOST_KEYS} can be told apart"
            )
        self._stages: dict[str, _OfStage] = {}
        self._failures = Failures()

    def note(self, stage: str, dataset: AnyDataSet) -> None:
        """Take what a window gave.

        :param stage: the name of its stage
        :param dataset: its results
        """
        keyed = dataset if isinstance(dataset, KeyedDataSet) else None
        found = self._stages.get(stage)
        if found is None:
            by = None if keyed is None else keyed.by
            found = self._stages[stage] = _OfStage(dataset.interval, by, first=dataset.window.start)
        found.windows += 1
        found.last = dataset.window.end
        for task, seconds in dataset.durations.items():
            of_task = found.tasks.setdefault(task, _OfTask())
            of_task.ran += 1
            of_task.seconds += seconds
            of_task.longest = max(of_task.longest, seconds)
        for error in dataset.errors.values():
            found.tasks.setdefault(error.task, _OfTask()).errors += 1
        if dataset.errors:
            self._failures.note(stage, dataset.errors.values())
        for task, value in dataset.items():
            of_task = found.tasks.setdefault(task, _OfTask())
            of_task.results += 1 if keyed is None else len(value)
        numbers = numbers_of(dataset) if keyed is None else self._over_keys(keyed)
        # Of DataSets that were made by hand, nobody knows what their times mean.
        time = float(dataset.timestamp) if dataset.interval is None else end_ms(dataset) / 1e3
        self._note_rows(time)
        found.numbers.append(time, numbers)
        found.took.append(time, {"tasks together": sum(dataset.durations.values())})

    def _over_keys(self, dataset: KeyedDataSet[Any, Any]) -> dict[str, float]:
        """What is drawn of a window by key: by the name of a chart and of a line in it."""
        places = (
            {key: place for place, key in enumerate(dataset.keys_of_rows)} if self._keys else {}
        )
        wanted = [
            (shown(key), place) for key in self._keys if (place := places.get(key)) is not None
        ]
        found: dict[str, float] = {}
        for name, numbers in numbers_by_key(dataset).items():
            found.update((_line(name, of), value) for of, value in spread(numbers).items())
            found.update((_line(name, key), float(numbers[place])) for key, place in wanted)
        return found

    def _note_rows(self, time: float) -> None:
        """Count rows, as seldom as a picture of so many windows has points."""
        self._until_rows -= 1
        if self._replay is None or self._until_rows > 0 or time <= self._rows_until:
            return
        self._count_rows(time, self._replay.summary)
        self._until_rows = sum(stage.windows for stage in self._stages.values()) // _ROWS_COUNTED

    def _count_rows(self, time: float, summary: ReplaySummary) -> None:
        self._rows_until = time
        for name, counts in summary.sources.items():
            of_source = {kind: float(getattr(counts, kind)) for kind in _FATES}
            self._rows.setdefault(name, ThinnedSeries()).append(time, of_source)

    def made(self, title: str) -> HtmlReport:
        """The report.

        :param title: what stands above it
        """
        summary = None if self._replay is None else self._replay.summary
        if summary is not None and self._rows_until > -math.inf:
            self._count_rows(math.nextafter(self._rows_until, math.inf), summary)
        windows = sum(stage.windows for stage in self._stages.values())
        facts = [("Stages", f"{len(self._stages):,}"), ("Windows", f"{windows:,}")]
        if summary is not None:
            rows = sum(source.received for source in summary.sources.values())
            facts += [("Rows", f"{rows:,}"), ("Replayed in", f"{summary.seconds:.3g} s")]
        told: dict[str, Any] = {
            "title": shown(title),
            "made": f"by run-task {__version__}",
            "facts": facts,
            "stages": [_stage_told(name, stage) for name, stage in self._stages.items()],
            "sources": [] if summary is None else _sources_told(summary),
            "fates": _fates_told(self._rows),
            "zone": _zone_of_all(self._stages.values()),
            "warnings": [] if summary is None else list(summary.warnings),
            "failures": [
                {
                    "stage": shown(failure.stage),
                    "task": shown(failure.task),
                    "key": None if failure.key is None else shown(failure.key),
                    "what": failure.what,
                    "times": failure.times,
                    "traceback": failure.traceback,
                }
                for failure in self._failures.latest(_MOST_FAILURES)
            ],
        }
        return HtmlReport(report_page(told))


def _line(chart: str, line: str) -> str:
    return f"{chart}\n{line}"  # no name of a task or a key goes on in another line, once shown


def _stage_told(name: str, stage: _OfStage) -> dict[str, Any]:
    charts: dict[str, dict[str, Sequence[float]]] = {}
    left_out: list[str] = []
    for line, column in stage.numbers.columns.items():
        chart, _, part = line.partition("\n") if stage.by is not None else (shown(line), "", "")
        if not np.isfinite(column).any():
            left_out.append(f"{chart} (no numbers)")
        elif chart in charts or len(charts) < _MOST_CHARTS:
            charts.setdefault(chart, {})[part or chart] = column
        else:
            left_out.append(chart)
    interval = stage.interval
    if interval is None:
        span = f"{stage.first} to {stage.last}"
    else:
        span = f"{time_shown(stage.first, interval)} to {time_shown(stage.last, interval)}"
    told = [_chart(title, stage.numbers, lines) for title, lines in charts.items()]
    told.append(_chart("How long tasks take, in seconds", stage.took, stage.took.columns))
    by = "" if stage.by is None else f", by {shown(stage.by)}"
    return {
        "name": shown(name),
        "about": f"{stage.windows:,} windows, {span}{by}",
        "zone": _zone(interval),
        "left_out": list(dict.fromkeys(left_out)),
        "charts": told,
        "tasks": [
            {
                "name": shown(task),
                "results": of.results,
                "errors": of.errors,
                "mean": of.seconds / of.ran if of.ran else None,
                "longest": of.longest if of.ran else None,
            }
            for task, of in stage.tasks.items()
        ],
    }


def _chart(title: str, over: ThinnedSeries, lines: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    return {
        "title": title,
        "names": list(lines),
        "times": over.times,
        "columns": [
            [value if math.isfinite(value) else None for value in column]
            for column in lines.values()
        ],
    }


def _fates_told(rows: Mapping[str, ThinnedSeries]) -> list[dict[str, Any]]:
    """Of each source a chart of its rows that were stored, and one of what else became of some,
    which are few beside these."""
    found: list[dict[str, Any]] = []
    for name, over in rows.items():
        there = {kind: column for kind, column in over.columns.items() if max(column) > 0}
        stored = {kind: column for kind, column in there.items() if kind == "stored"}
        others = {kind: column for kind, column in there.items() if kind != "stored"}
        for title, lines in (("stored", stored), ("other fates", others)):
            if lines:
                found.append(_chart(f"{shown(name)}: rows until then, {title}", over, lines))
    return found


def _zone_of_all(stages: Iterable[_OfStage]) -> str | None:
    """The time zone of results of several stages; None: nobody knows what their times mean."""
    zones = {_zone(stage.interval) for stage in stages}
    if None in zones:
        return None
    return zones.pop() if len(zones) == 1 else "UTC"


def _zone(interval: Interval | None) -> str | None:
    return None if interval is None else str(getattr(zone_of(interval), "key", "UTC"))


def _sources_told(summary: ReplaySummary) -> list[dict[str, Any]]:
    """The counts that any source has some of, and those of most rows."""
    counts = {name: asdict(source) for name, source in summary.sources.items()}
    kinds = [
        kind
        for kind in SourceStats.__dataclass_fields__
        if kind in ("received", "stored", "late", "malformed", "ahead", "expired")
        or any(of[kind] for of in counts.values())
    ]
    return [
        {"name": shown(name), "counts": {kind: of[kind] for kind in kinds}}
        for name, of in counts.items()
    ]
