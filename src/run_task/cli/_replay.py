"""``run-task replay``: a pipeline over history, and what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from run_task.cli._exits import Exit, building, running
from run_task.cli._interrupt import ctrl_c_raised_again
from run_task.cli._project import GivenOptions
from run_task.cli._results_file import results_file
from run_task.cli._shards import NOTHING_SAID, ShardOptions
from run_task.cli._target import files_closed
from run_task.errors import ConfigError, escaped
from run_task.observe._format import brief
from run_task.pipeline._report import ReportDraft
from run_task.pipeline.replay._progress_bar import no_progress
from run_task.runner import SourceStats
from run_task.tasks import KeyedDataSet
from run_task.time._epoch import from_nanos, nanos_since_epoch
from run_task.time._wall_time import WallClock

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from run_task.pipeline import Pipeline, ReplaySummary
    from run_task.tasks._keyed import AnyDataSet


@dataclass
class _Done:
    """What a stage has done."""

    windows: int = 0
    results: int = 0
    failed: int = 0
    keys: int = 0
    """How many there were at most in a window."""

    def note(self, dataset: AnyDataSet) -> None:
        self.windows += 1
        if isinstance(dataset, KeyedDataSet):
            self.keys = max(self.keys, len(dataset.keys_of_rows))
            self.results += sum(map(len, dataset.values()))
        else:
            self.results += len(dataset)
        self.failed += len(dataset.errors)


@dataclass(frozen=True)
class ReportOptions:
    """What the command line says of a report.

    :param file: where it is written; None: there is none
    :param keys: the keys that have a line of their own
    """

    file: str | None
    keys: Sequence[str] = ()


def replay_target(
    target: str,
    start: str | None,
    end: str | None,
    out: str | None,
    report: ReportOptions,
    quiet: bool,
    said: GivenOptions,
    zone: str = "UTC",
    shards: ShardOptions = NOTHING_SAID,
) -> Exit:
    """Replay the pipeline that a target names."""
    if report.keys and report.file is None:
        raise typer.BadParameter("keys are drawn in a report: add --report", param_hint="--key")
    clock = clock_of(zone)
    first, last = instant_of(start, "--start", clock), instant_of(end, "--end", clock)
    with building():
        named = said.project("error").target(target)
        over = shards.over(named.over)
        pipeline = named.load()
    done = {stage.name: _Done() for stage in pipeline.stages}
    draft: ReportDraft | None = None
    with running(), ExitStack() as opened:
        if quiet:
            opened.enter_context(no_progress())
        if out is not None:
            sink = opened.enter_context(results_file(out, pipeline.name))
            pipeline.sink(sink)
        opened.enter_context(files_closed(pipeline))
        # Closed here, since it flushes the file, which must not be closed before.
        results = opened.enter_context(closing(over.replay(pipeline, first, last)))
        if report.file is not None:
            draft = ReportDraft(_keys_of(pipeline, report.keys), results)
        check_ctrl_c = opened.enter_context(ctrl_c_raised_again())
        began = time.monotonic()
        try:
            for name, dataset in results:
                done[name].note(dataset)
                if draft is not None:
                    draft.note(name, dataset)
                check_ctrl_c()
        finally:
            if not quiet and (sys.exception() is None or _has_begun(results.summary)):
                _summarize(done, results.summary, time.monotonic() - began)
        if draft is not None and report.file is not None:
            draft.made(pipeline.name).save(report.file)
            if not quiet:
                typer.echo(f"report written to {report.file}")
    if out is not None and not quiet:
        typer.echo(f"written to {out}")
    return Exit.DONE


def _has_begun(summary: ReplaySummary) -> bool:
    """Whether there is something to tell of a replay that has failed."""
    return summary.windows > 0 or any(of.received for of in summary.sources.values())


def _keys_of(pipeline: Pipeline, texts: Sequence[str]) -> Sequence[str | int]:
    """The keys that texts name: of stages whose keys are ints, they are ints, too."""
    found: list[str | int] = []
    for text in texts:
        kinds = {
            series.columns[stage.keys.by].kind
            for stage in pipeline.stages
            if stage.keys is not None
            for series in stage.keys.keyed(stage.data)
        }
        if kinds != {"i"}:
            found.append(text)
        if "i" in kinds:
            with suppress(ValueError):
                found.append(int(text))
    return found


def _summarize(done: Mapping[str, _Done], summary: ReplaySummary, seconds: float) -> None:
    from rich.console import Console

    from run_task.cli._grid import cell, count, grid
    from run_task.observe._format import shown

    by_key = any(stage.keys for stage in done.values())
    columns = ("windows", *(("keys",) if by_key else ()), "results", "failed")
    table = grid(("stage", 1), *((column, 0) for column in columns))
    for name, stage in done.items():
        cells: dict[str, str | Text] = {
            "windows": f"{stage.windows:,}",
            "keys": f"{stage.keys:,}" if stage.keys else "",
            "results": f"{stage.results:,}",
            "failed": count(stage.failed),
        }
        table.add_row(cell(shown(name)), *(cells[column] for column in columns))
    of_sources = _of_sources(summary.sources)
    windows = sum(stage.windows for stage in done.values())
    console = Console(highlight=False)
    console.print(table)
    if of_sources is not None:
        console.print(of_sources)
    rate = f", {windows / seconds:,.0f} a second" if seconds > 0 else ""
    told = f"{windows:,} window{'' if windows == 1 else 's'}"
    console.print(f"{told} in {seconds:.2f} s{rate}", markup=False)
    for warning in summary.warnings:
        console.print(escaped(f"warning: {warning}"), markup=False, soft_wrap=True)


def _of_sources(sources: Mapping[str, SourceStats]) -> Table | None:
    """What became of the rows, if some are not as they should be: what is none of, is left out."""
    from run_task.cli._grid import cell, count, grid
    from run_task.observe._format import shown

    kinds = [field.name for field in fields(SourceStats)]
    found = [kind for kind in kinds if any(getattr(of, kind) for of in sources.values())]
    if all(kind in ("received", "stored") for kind in found):
        return None
    table = grid(("source", 1), *((kind, 0) for kind in found))
    for name, of in sources.items():
        counts = (getattr(of, kind) for kind in found)
        good = ("received", "stored", "waiting")
        table.add_row(
            cell(shown(name)),
            *(f"{n:,}" if kind in good else count(n) for kind, n in zip(found, counts)),
        )
    return table


def clock_of(zone: str) -> WallClock:
    """What shows times that name no zone."""
    try:
        return WallClock(zone)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--zone") from None


def instant_of(text: str | None, option: str, clock: WallClock) -> int | datetime | None:
    """A point in time, as the user wrote it.

    :param clock: what shows a time that names no zone
    """
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{brief(text)} is no time: write 2026-11-24T08:00, or a whole number in the unit of "
            f"the stages",
            param_hint=option,
        ) from None
    if when.tzinfo is not None:
        return when
    try:
        return from_nanos(clock.when(nanos_since_epoch(when.replace(tzinfo=UTC))))
    except (ConfigError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint=option) from None
