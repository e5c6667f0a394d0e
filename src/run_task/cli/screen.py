"""The live view of a running pipeline."""

from __future__ import annotations

import enum
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from run_task.cli.grid import BAD, HEAD, cell, count, grid
from run_task.cli.shown import elapsed, named, seconds, shown
from run_task.cli.sparkline import sparkline
from run_task.cli.watch import HISTORY, Watch

if TYPE_CHECKING:
    from run_task.pipeline import Pipeline
    from run_task.stats import Percentiles, PipelineStats

_REFRESHED: Final = 4
"""How many times a second."""

_WIDEST: Final = 120
"""How many columns are filled at most: further apart, a row is hard to follow."""

_NARROW: Final = 76
"""Below how many columns there is no room for all that is known of a stage."""

_MOST_FAILURES: Final = 4


class State(enum.Enum):
    """How far a run is, in the words of the view."""

    RUNNING = "Ctrl-C shuts it down"
    ENDING = "shutting down; Ctrl-C ends it at once"
    ENDED = "ended"


class Screen:
    """What is seen of a pipeline, drawn anew whenever it is asked for.

    :param pipeline: the pipeline, before it runs
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.watch: Watch = Watch(pipeline)
        self.state: State = State.RUNNING

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        options = options.update(max_width=min(options.max_width, _WIDEST))
        stats = self.watch.stats()
        failures = self._failures()
        above = [
            self._title(stats),
            *self._sources(stats),
            self._stages(stats, options.max_width),
            Text(),
        ]
        below: list[RenderableType] = [Text(), failures] if failures is not None else []
        used = sum(len(console.render_lines(part, options)) for part in (*above, *below))
        room = sys.maxsize if self.state is State.ENDED else console.size.height - used - 1
        whole = Group(*above, self._tasks(room, options.max_width), *below)
        yield from console.render(whole, options)

    def _title(self, stats: PipelineStats) -> Text:
        title = Text(no_wrap=True, overflow="ellipsis")
        title.append(shown(self._pipeline.name), HEAD)
        title.append(f"  {elapsed(time.monotonic() - self.watch.began)}")
        title.append(f"  {stats.waiting:,} queued")
        title.append(f"  {self.state.value}", HEAD if self.state is State.ENDING else "")
        return title

    def _sources(self, stats: PipelineStats) -> Sequence[RenderableType]:
        if not stats.rows:
            return [Text()]
        table = grid(("source", 1), ("rows", 0), ("rows/s", 0))
        rates = self.watch.rates(stats.rows)
        for (source, _), rows, rate in zip(self._pipeline.sources, stats.rows, rates):
            table.add_row(cell(named(source)), f"{rows:,}", f"{rate:,.1f}")
        return [Text(), table, Text()]

    def _stages(self, stats: PipelineStats, width: int) -> RenderableType:
        columns = ["every", "windows", "missed", "failed", "late p50/p99", "took p50/p99"]
        if width < _NARROW:
            columns = columns[1:-1]
        table = grid(("stage", 1), *((name, 0) for name in columns))
        for stage in self._pipeline.stages:
            done = stats.stages[stage.name]
            cells: dict[str, str | Text] = {
                "every": str(stage.interval),
                "windows": f"{done.ticks:,}",
                "missed": count(done.missed),
                "failed": count(self.watch.stages[stage.name].failed),
                "late p50/p99": _spread(done.lateness),
                "took p50/p99": _spread(done.duration),
            }
            table.add_row(cell(shown(stage.name)), *(cells[name] for name in columns))
        return table

    def _tasks(self, room: int, width: int) -> RenderableType:
        """The tasks with their last values, as many as there is room for."""
        bars = max(10, min(HISTORY, width // 4))
        rows: list[tuple[Text, Text, Text]] = []
        several = len(self._pipeline.stages) > 1
        for stage in self._pipeline.stages:
            values, history = self.watch.recent(stage.name)
            failing = self.watch.stages[stage.name].failing
            for task in stage.tasks:
                name = f"{stage.name} / {task.name}" if several else task.name
                if task.name in failing:
                    value = Text("no result", BAD)
                else:
                    value = Text(shown(values[task.name]) if task.name in values else "")
                line = sparkline(history[task.name], bars)
                rows.append((Text(shown(name)), value, Text(line)))
        head = (Text("task", HEAD), Text("value", HEAD), Text())
        shown_rows = rows if len(rows) + 1 <= room else rows[: max(0, room - 2)]
        table = Table.grid(padding=(0, 2), expand=True)
        longest = max((name.cell_len for name, _, _ in rows), default=0)
        table.add_column(width=min(longest, (width - bars) // 2), no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(width=bars, no_wrap=True)
        for row in (head, *shown_rows):
            table.add_row(*row)
        if len(shown_rows) < len(rows):
            table.add_row(Text(f"and {len(rows) - len(shown_rows)} more"), Text(), Text())
        return table

    def _failures(self) -> RenderableType | None:
        latest = self.watch.latest_failures(_MOST_FAILURES)
        if not latest:
            return None
        lines = [Text("latest errors", HEAD)]
        for failure, seen in latest:
            line = Text(no_wrap=True, overflow="ellipsis")
            line.append(time.strftime("%X ", time.localtime(seen.at)))
            line.append(f"{shown(failure.stage)} / {shown(failure.task)} ", HEAD)
            line.append(f"{seen.times:,} times " if seen.times > 1 else "")
            line.append(failure.what, "red")
            lines.append(line)
        return Group(*lines)


@contextmanager
def on_screen(screen: Screen) -> Generator[None]:
    """Draw it again and again for as long as the block lasts. The last drawing stays."""
    live = Live(
        console=Console(highlight=False),
        get_renderable=lambda: screen,
        refresh_per_second=_REFRESHED,
        redirect_stderr=sys.stderr.isatty(),  # into a file, it is in nobody's way
        vertical_overflow="crop",
    )
    with live:
        try:
            yield
        finally:
            screen.state = State.ENDED


def _spread(measured: Percentiles) -> str:
    """The median and the 99th percentile."""
    return f"{seconds(measured.p50)} / {seconds(measured.p99)}"
