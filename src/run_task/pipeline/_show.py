"""Charts of a pipeline in a notebook, which move while it runs."""

from __future__ import annotations

import functools
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from run_task._extras import need
from run_task.observe._format import seconds, shown
from run_task.observe._web import web_file
from run_task.pipeline._archive import Archive, end_ms
from run_task.pipeline._monitor import Monitor, MonitoredPipeline
from run_task.pipeline._over_keys import numbers_by_key, spread
from run_task.tasks._keyed import KeyedDataSet

EVERY: Final = 0.5
"""How many seconds lie between two looks."""

_MOST_WINDOWS: Final = 300
"""How many windows are drawn."""

_MOST_STAGES: Final = 12
_MOST_CHARTS: Final = 8
"""How many a stage has."""

SCRIPTS: Final = ("uPlot.iife.min.js", "charts.js", "show.js")
"""What the module of the widget consists of."""

_STYLES: Final = ("uPlot.min.css", "charts.css", "show.css")


class LiveCharts:
    """Charts that a notebook shows, and that go on until the pipeline ends or they are closed.

    :param pipeline: the pipeline
    """

    def __init__(self, pipeline: MonitoredPipeline) -> None:
        self._widget = _widget_class()()
        self._pipeline = pipeline
        self._monitor = Monitor(pipeline, archive=(archive := Archive()))
        self._archive = archive
        self._keys = dict[str, _KeysOverTime]()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="run-task show", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let them stand still. The pipeline goes on. Any number of times."""
        self._closed.set()
        self._thread.join(1.0)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self._widget._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        return f"<LiveCharts of {self._pipeline!r}>"

    def _go_on(self) -> None:
        while not self._closed.wait(EVERY):
            runs = self._pipeline.is_running
            began = any(stage.ticks for stage in self._pipeline.stats.stages.values())
            ended = began and not runs
            told = self._told("ended" if ended else "runs" if runs else "has not begun")
            if told != self._widget.told:
                self._widget.told = told
            if ended:
                return

    def _told(self, state: str) -> dict[str, Any]:
        """What the widget draws, as JSON has it."""
        stats = self._pipeline.stats.stages
        stages: list[dict[str, Any]] = []
        for name in list(stats)[:_MOST_STAGES]:
            seen = self._monitor.of(name)
            if isinstance(seen.newest, KeyedDataSet):
                over = self._keys.setdefault(name, _KeysOverTime())
                over.note(seen.newest)
                times, charts = over.told()
            else:
                times, charts = self._numbers(name)
            of = stats[name]
            about = (
                f"{of.ticks:,} windows, late {seconds(of.lateness.p99)} (p99), "
                f"{seen.failed:,} results missing"
            )
            if seen.failing:
                about += f"; failing: {', '.join(map(shown, sorted(seen.failing)))}"
            if more := len(charts) - _MOST_CHARTS:
                about += f"; {more} more are not drawn" if more > 0 else ""
            stages.append(
                {
                    "name": shown(name),
                    "about": about,
                    "times": times,
                    "charts": charts[:_MOST_CHARTS],
                }
            )
        return {"name": shown(self._pipeline.name), "state": state, "stages": stages}

    def _numbers(self, stage: str) -> tuple[Sequence[float], Sequence[Mapping[str, Any]]]:
        found = self._archive.read(stage, None, 0.0)
        times = [end / 1e3 for end in found.ends_ms[-_MOST_WINDOWS:]]
        charts = [
            {
                "title": shown(name),
                "names": [shown(name)],
                "columns": [_plain(column[-_MOST_WINDOWS:])],
            }
            for name, column in found.columns.items()
            if np.isfinite(column).any()
        ]
        return times, charts


class _KeysOverTime:
    """What tasks gave for all keys, of the latest windows that were looked at."""

    def __init__(self) -> None:
        self._windows = deque[tuple[float, Mapping[str, Mapping[str, float]]]](maxlen=_MOST_WINDOWS)

    def note(self, dataset: KeyedDataSet[Any, Any]) -> None:
        """Look at the newest window, if that is another one."""
        ended_ms = end_ms(dataset)
        if not self._windows or self._windows[-1][0] < ended_ms:
            numbers = numbers_by_key(dataset)
            self._windows.append((ended_ms, {name: spread(of) for name, of in numbers.items()}))

    def told(self) -> tuple[Sequence[float], Sequence[Mapping[str, Any]]]:
        """The times, and a chart for each number that tasks give."""
        names = list(dict.fromkeys(name for _, spreads in self._windows for name in spreads))
        charts: list[Mapping[str, Any]] = []
        for name in names:
            none: Mapping[str, float] = {}
            of_name = [spreads.get(name, none) for _, spreads in self._windows]
            lines = list(dict.fromkeys(line for each in of_name for line in each))
            columns = [_plain([each.get(line, math.nan) for each in of_name]) for line in lines]
            charts.append({"title": f"{name} of all keys", "names": lines, "columns": columns})
        return [ended / 1e3 for ended, _ in self._windows], charts


def _plain(numbers: Sequence[float]) -> list[float | None]:
    return [number if math.isfinite(number) else None for number in numbers]


@functools.cache
def _widget_class() -> Any:
    """The class of the widget, whose library is loaded once somebody has one."""
    anywidget, traitlets = need("anywidget", "notebook"), need("traitlets", "notebook")
    members = {
        "_esm": "\n".join(web_file(name).decode() for name in SCRIPTS),
        "_css": "\n".join(web_file(name).decode() for name in _STYLES),
        "told": traitlets.Dict().tag(sync=True),
        "__module__": __name__,
    }
    return type("ChartsWidget", (anywidget.AnyWidget,), members)
