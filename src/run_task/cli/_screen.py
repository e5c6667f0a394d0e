"""The live view of a running pipeline."""

from __future__ import annotations

import enum
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import (
    Console,
    ConsoleOptions,
    ConsoleRenderable,
    Group,
    RenderableType,
    RenderResult,
)
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from run_task.cli._grid import BAD, HEAD, cell, count, grid
from run_task.cli._keys_table import keys_table, over_keys
from run_task.cli._sparkline import sparkline
from run_task.observe._format import elapsed, seconds, shown
from run_task.pipeline._monitor import HISTORY, Monitor
from run_task.runner._stats import RunnerStats, shards_shown
from run_task.time._length import in_short

if TYPE_CHECKING:
    from run_task.pipeline import Pipeline
    from run_task.pipeline._stage import AnyStage
    from run_task.runner._stats import Percentiles, PipelineStats, SinkStats

_REFRESHED: Final = 4
"""How many times a second."""

_WIDEST: Final = 120
"""How many columns are filled at most: further apart, a row is hard to follow."""

_NARROW: Final = 76
_NARROWER: Final = 56
"""Below how many columns there is no room for all that is known of a stage."""

_WRONG: Final = (
    "late",
    "malformed",
    "rejected",
    "ahead",
    "expired",
    "duplicate",
    "unseen",
    "dropped",
    "restarts",
)
"""What rows should not be: a column each, where some are."""

_UNWRITTEN: Final = ("failures", "refused", "dropped", "lost")
"""The same of a sink, which is seen once some are."""

_NOT_YET: Final = RunnerStats()
"""Of a stage that was added just now."""

_MOST_FAILURES: Final = 4

_MOST_KEYS: Final = 12
"""How many keys are seen of a stage."""

_LEAST_TASKS: Final = 3
"""For how many tasks other things make room on a screen that is too low for all."""


class _Limits(NamedTuple):
    """What is seen besides the tasks.

    :param sources: at most how many sources
    :param stages: at most how many stages
    :param failures: at most how many errors
    :param gaps: whether blank lines part them
    """

    sources: int
    stages: int
    failures: int
    gaps: bool


_ALL: Final = _Limits(sys.maxsize, sys.maxsize, _MOST_FAILURES, True)


class State(enum.Enum):
    """How far a run is, in the words of the view."""

    RUNNING = "Ctrl-C shuts it down"
    ENDING = "shutting down; Ctrl-C ends it at once"
    ENDED = "ended"


class Screen:
    """What is seen of a pipeline, drawn anew whenever it is asked for.

    :param pipeline: the pipeline, before it runs
    :param key: a part of the keys that are asked for; None: none in particular
    """

    def __init__(self, pipeline: Pipeline, key: str | None = None) -> None:
        self._pipeline = pipeline
        self._key = key
        self.monitor: Monitor = Monitor(pipeline, key)
        self._drawn: Sequence[AnyStage] = ()  # those of one drawing: some may come and go meanwhile
        self.state: State = State.RUNNING
        self.widths: Sequence[int] = ()
        """Of the lines that are drawn."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        options = options.update(max_width=min(options.max_width, _WIDEST))
        self._drawn = self._pipeline.stages
        stats = self.monitor.stats()
        rates = self.monitor.rates(dict(zip(stats.sources, stats.rows)))
        above: Sequence[RenderableType] = ()
        below: Sequence[RenderableType] = ()
        room = 0
        wanted = min(1 + _LEAST_TASKS, self._task_lines())
        for limits in self._choices(console.size.height):
            above, below = self._around_tasks(limits, stats, rates, options.max_width)
            used = sum(len(console.render_lines(part, options)) for part in (*above, *below))
            room = sys.maxsize if limits is _ALL else console.size.height - used - 1
            if room >= wanted:
                break
        keys = self._keys(room - self._task_lines(), options.max_width)
        whole = Group(*above, self._tasks(room, options.max_width), *keys, *below)
        lines = console.render_lines(whole, options, pad=False)[: console.size.height]
        self.widths = [Segment.get_line_length(line) for line in lines]
        yield from console.render(whole, options)

    def _choices(self, height: int) -> Sequence[_Limits]:
        """What may be seen besides the tasks, the best first; the last does if none leaves room."""
        if self.state is State.ENDED:
            return [_ALL]  # it may be scrolled to
        sources, stages = max(2, height // 4), max(2, height // 3)
        return [
            _Limits(sources, stages, _MOST_FAILURES, True),
            _Limits(sources, stages, 1, True),
            _Limits(0, stages, 1, True),
            _Limits(0, stages, 1, False),
            _Limits(0, stages, 0, False),
        ]

    def _around_tasks(
        self, limits: _Limits, stats: PipelineStats, rates: Mapping[str, float], width: int
    ) -> tuple[Sequence[RenderableType], Sequence[RenderableType]]:
        """What stands above the tasks, and what below."""
        gap = [Text()] if limits.gaps else []
        above: list[RenderableType] = [self._title(stats, width), *gap]
        if stats.rows and limits.sources:
            above += [self._sources(stats, rates, limits.sources, width), *gap]
        above += [self._stages(stats, limits.stages, width), *gap]
        troubled = {
            name: of for name, of in stats.sinks.items() if any(getattr(of, k) for k in _UNWRITTEN)
        }
        if troubled and limits.sources:
            above += [_sinks(troubled, limits.sources, width), *gap]
        failures = self._failures(limits.failures, width)
        return above, [*gap, *failures] if failures else []

    def _title(self, stats: PipelineStats, width: int) -> Text:
        about = [
            f"  {elapsed(time.monotonic() - self.monitor.began)}",
            f"  {stats.waiting:,} queued",
            f"  {self.state.value}",
        ]
        if width < _NARROW:
            del about[1]
        elif stats.shards:
            about.insert(1, f"  {shards_shown(stats.shards)}")
        name = Text(shown(self._pipeline.name), HEAD)
        name.truncate(max(width - sum(map(len, about)), width // 5), overflow="ellipsis")
        title = Text(no_wrap=True, overflow="ellipsis")
        title.append_text(name).append("".join(about[:-1]))
        title.append(about[-1], HEAD if self.state is State.ENDING else "")
        return title

    def _sources(
        self, stats: PipelineStats, rates: Mapping[str, float], most: int, width: int
    ) -> Table:
        all_counts = list(stats.sources.values())
        wrong = [kind for kind in _WRONG if any(getattr(of, kind) for of in all_counts)]
        if width < _NARROW:
            del wrong[2:]
        table = grid(("source", 1), ("rows", 0), ("rows/s", 0), *((kind, 0) for kind in wrong))
        of_each = list(zip(stats.sources, self._pipeline.source_titles, stats.rows, all_counts))
        for name, title, rows, counts in of_each[:most]:
            told = (count(getattr(counts, kind)) for kind in wrong)
            table.add_row(cell(shown(title)), f"{rows:,}", f"{rates[name]:,.1f}", *told)
        _tell_more(table, len(of_each), most)
        return table

    def _stages(self, stats: PipelineStats, most: int, width: int) -> Table:
        columns = ["every", "windows", "missed", "failed", "late p50/p99", "took p50/p99"]
        if width < _NARROW:
            columns = columns[1:-1]
        if width < _NARROWER:
            columns = columns[:-1]
        table = grid(("stage", 1), *((name, 0) for name in columns))
        for stage in self._drawn[:most]:
            done = stats.stages.get(stage.name, _NOT_YET)
            cells: dict[str, str | Text] = {
                "every": in_short(stage.interval),
                "windows": f"{done.ticks:,}",
                "missed": count(done.missed),
                "failed": count(self.monitor.of(stage.name).failed),
                "late p50/p99": _spread(done.lateness),
                "took p50/p99": _spread(done.duration),
            }
            table.add_row(cell(shown(stage.name)), *(cells[name] for name in columns))
        _tell_more(table, len(self._drawn), most)
        return table

    def _task_lines(self) -> int:
        """How many lines all tasks take."""
        return 1 + sum(len(stage.tasks) for stage in self._drawn)

    def _keys(self, room: int, width: int) -> Sequence[RenderableType]:
        """Of each stage by key those keys that are worth a look, if there is room for some."""
        by_key = [stage for stage in self._drawn if stage.keys is not None]
        found: list[RenderableType] = []
        for place, stage in enumerate(by_key):
            keys = self.monitor.of(stage.name).keys
            most = min(room // (len(by_key) - place) - 1, _MOST_KEYS + 1)
            if keys is None or most < 2:
                continue
            by = shown(keys.by)
            title = by if len(self._drawn) == 1 else f"{shown(stage.name)} / {by}"
            if keys.matching is not None:
                title += f", {keys.matching:,} with {shown(self._key)}"
            names = [task.name for task in stage.tasks if task.name in keys.tasks]
            table = keys_table(title, keys, names, most, width)
            if table is not None:
                found += [Text(), table]
                room -= 1 + most
        return found

    def _tasks(self, room: int, width: int) -> RenderableType:
        """The tasks with their last values, as many as there is room for."""
        bars = max(10, min(HISTORY, width // 4))
        most = (width - bars) // 2
        rows: list[tuple[Text, Text, Text]] = []
        several = len(self._drawn) > 1
        for stage in self._drawn:
            values, history = self.monitor.recent(stage.name)
            seen = self.monitor.of(stage.name)
            keys, failing = seen.keys, seen.failing
            for task in stage.tasks:
                name = _both(stage.name, task.name, most) if several else shown(task.name)
                if task.name in failing:
                    value = Text("no result", BAD)
                elif keys is not None:
                    value = over_keys(keys.tasks.get(task.name), keys)
                else:
                    value = Text(shown(values[task.name]) if task.name in values else "")
                line = sparkline(history.get(task.name, ()), bars)
                rows.append((Text(name), value, Text(line)))
        head = (Text("task", HEAD), Text("value", HEAD), Text())
        shown_rows = rows if len(rows) + 1 <= room else rows[: max(0, room - 2)]
        table = Table.grid(padding=(0, 2), expand=True)
        longest = max(name.cell_len for name, _, _ in (head, *rows))
        table.add_column(width=min(longest, most), no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(width=bars, no_wrap=True)
        for row in (head, *shown_rows):
            table.add_row(*row)
        if len(shown_rows) < len(rows):
            table.add_row(Text(f"and {len(rows) - len(shown_rows)} more"), Text(), Text())
        return table

    def _failures(self, most: int, width: int) -> Sequence[Text]:
        latest = self.monitor.failures.latest(most)
        if not latest:
            return []
        # By when each was first seen: those that come each tick would change places each time.
        latest = sorted(latest, key=lambda failure: failure.number, reverse=True)
        lines = [Text("latest errors", HEAD)]
        for failure in latest:
            line = Text(no_wrap=True, overflow="ellipsis")
            line.append(time.strftime("%X ", time.localtime(failure.at)))
            line.append(f"{_both(failure.stage, failure.task, width * 2 // 5)} ", HEAD)
            line.append(f"{failure.times:,} times " if failure.times > 1 else "")
            line.append(failure.what, "red")
            lines.append(line)
        return lines


class _View(Live):
    """A view that a narrower window leaves no remains of.

    Most terminals wrap the lines that are there when they become narrower, so that they are more
    than were drawn.
    """

    def __init__(self, screen: Screen, console: Console) -> None:
        super().__init__(
            console=console,
            get_renderable=lambda: screen,
            refresh_per_second=_REFRESHED,
            redirect_stderr=sys.stderr.isatty(),  # into a file, it is in nobody's way
            vertical_overflow="crop",
        )
        self._screen_drawn = screen

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        width = self.console.width
        more = sum(max(0, drawn - 1) // width for drawn in self._screen_drawn.widths)
        up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * more
        erase = Control((ControlType.ERASE_IN_LINE, 2), *up)
        return [erase, *super().process_renderables(renderables)]


def view(screen: Screen, console: Console) -> Live:
    """A view of a screen, which is drawn from when it is started until it is stopped."""
    return _View(screen, console)


@contextmanager
def on_screen(screen: Screen) -> Generator[None]:
    """Draw it again and again for as long as the block lasts. The last drawing stays."""
    with view(screen, Console(highlight=False)):
        try:
            yield
        finally:
            screen.state = State.ENDED


def _both(stage: str, task: str, width: int) -> str:
    """The names of a stage and a task; where there is no room for both, of the stage less."""
    name = Text(shown(task))
    head = Text(f"{shown(stage)} /")
    if head.cell_len + 1 + name.cell_len > width:
        head = Text(shown(stage))
        head.truncate(max(width - name.cell_len - 3, width // 3), overflow="ellipsis")
        head.append(" /")
    whole = Text(f"{head.plain} {name.plain}")
    whole.truncate(width, overflow="ellipsis")
    return whole.plain


def _tell_more(table: Table, there: int, most: int) -> None:
    if there > most:
        table.add_row(f"and {there - most} more")


def _spread(measured: Percentiles) -> str:
    """The median and the 99th percentile."""
    return f"{seconds(measured.p50)} / {seconds(measured.p99)}"


def _sinks(troubled: Mapping[str, SinkStats], most: int, width: int) -> Table:
    """The sinks that have not taken all there was."""
    wrong = [kind for kind in _UNWRITTEN if any(getattr(of, kind) for of in troubled.values())]
    if width < _NARROW:
        del wrong[2:]
    table = grid(("sink", 1), ("written", 0), ("waiting", 0), *((kind, 0) for kind in wrong))
    for name, of in list(troubled.items())[:most]:
        told = (count(getattr(of, kind)) for kind in wrong)
        table.add_row(cell(shown(name)), f"{of.written:,}", f"{of.waiting:,}", *told)
    _tell_more(table, len(troubled), most)
    return table
