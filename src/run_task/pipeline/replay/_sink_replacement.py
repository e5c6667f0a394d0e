"""Windows that are computed again, in the place of those that sinks hold."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from run_task._window import Window
from run_task.errors import ConfigError
from run_task.observe._log import Log
from run_task.pipeline._fates import Fates
from run_task.pipeline._order import NEVER
from run_task.pipeline._sink_start import Renewal
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.replay._history import Given, History, WantedWindows
from run_task.runner._config import Align
from run_task.runner._stats import SourceStats
from run_task.sinks._protocol import DurableSink
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.time._shown import time_shown, window_shown

_log = Log(__name__)


@dataclass(frozen=True, kw_only=True)
class RecomputeSummary:
    """What :meth:`Pipeline.recompute` has done.

    :param stage: the name of the stage
    :param windows: how many windows were computed and written
    :param removed: how many windows sinks held that there are no more, whose rows are gone
    :param replaced: by sink, as it shows itself, how many rows it held of all of these windows:
        one a task, window and key
    :param untouched: how many windows sinks hold behind the last row that there is: where no end
        was given, and the pipeline does not run, they stay as they were
    :param refused: how many results a sink could not store: of these windows it holds nothing any
        more, as after a replay of all
    :param sources: what has become of the rows of each source that was read, by its name, up to
        the last that was needed
    :param seconds: how long it took
    """

    stage: str
    windows: int
    removed: int
    replaced: Mapping[str, int]
    untouched: int
    refused: int
    sources: Mapping[str, SourceStats]
    seconds: float


class SinkReplacement:
    """What is written to sinks, so that they hold what a replay of all would have written to them.

    :param history: computes the windows
    :param part: which are wanted
    :param sinks: where they go
    :param renewals: take note of the versions of tasks
    """

    def __init__(
        self,
        history: History,
        part: WantedWindows,
        sinks: Sequence[DurableSink],
        renewals: Sequence[Renewal],
    ) -> None:
        self._history = history
        self._part = part
        self._stage: AnyStage = part.stage
        self._sinks = sinks
        self._renewals = renewals
        self._where: Final = f"recompute({part.stage.name!r})"
        self._begun_s = time.monotonic()
        self._held: dict[tuple[int, int], Counter[int]] = {}  # rows by the place of the sink
        self._replaced: Counter[int] = Counter()
        self._windows = self._removed = 0
        self._removing = False

    def given(self) -> Generator[Given]:
        """What is to be written: the windows that are computed, and then one without any result for
        each that is there no more. Of each, :meth:`note` is told before the next is asked for.

        :raises ConfigError: before anything is given, if not all of these windows can be computed
        """
        looked = begun = False
        for given in self._history.run_part(self._part):
            if not looked:
                looked = True
                self._look()
            elif not begun:
                begun = True
                self._begin()
                yield given
            else:
                yield given
        if not looked:
            raise ConfigError(
                f"{self._where}: there is no row that its windows could be computed from"
            )
        if not begun:
            self._begin()
        self._removing = True
        last_ns, unit_ns = self._last_ns(), self._stage.interval.unit.nanos
        for window in sorted(w for w in self._held if w[1] * unit_ns <= last_ns):
            yield self._stage, (self._nothing_of(Window(*window)),)

    def _last_ns(self) -> float:
        """The end of the last window of which it is known what there is, once all rows are read."""
        return max(self._history.last_end_ns, self._history.until_ns)

    def note(self, dataset: AnyDataSet) -> None:
        """A window was written."""
        held = self._held.pop((dataset.window.start, dataset.window.end), None)
        if held is not None:
            self._replaced += held
        if self._removing:
            self._removed += 1
        else:
            self._windows += 1

    def end(self, fates: Sequence[Fates], refused: int) -> RecomputeSummary:
        """All is written, and lasts.

        :param fates: count what became of rows
        :param refused: how many results sinks could not store
        """
        for renewal in self._renewals:
            renewal.end()
        if self._held:
            _log.warning(
                "%s: sinks hold %d windows of it behind the last row that there is, which stay as "
                "they were, the first %s; give end= to have them computed, as windows without rows",
                *(self._where, len(self._held)),
                window_shown(*min(self._held), self._stage.interval),
            )
        return RecomputeSummary(
            stage=self._stage.name,
            windows=self._windows,
            removed=self._removed,
            replaced={repr(sink): self._replaced[place] for place, sink in enumerate(self._sinks)},
            untouched=len(self._held),
            refused=refused,
            sources={one.policy.name: one.stats() for one in fates},
            seconds=time.monotonic() - self._begun_s,
        )

    def _held_by(self, sink: DurableSink) -> Iterator[tuple[int, int]]:
        """The windows that a sink holds, each once for each row, at least where some are wanted."""
        name, unit_ns = self._stage.name, self._stage.interval.unit.nanos
        windows: Any = getattr(sink, "windows", None)
        if not callable(windows):
            yield from ((row.start, row.end) for row in sink.rows(name))
            return
        start_ns, end_ns = self._part.start_ns, min(self._part.end_ns, self._part.last_ns)
        after = None if start_ns == -NEVER else int(start_ns) // unit_ns
        before = None if end_ns == NEVER else -(-int(end_ns) // unit_ns)
        found: Any = windows(name, after, before)
        yield from ((start, end) for start, end in found)

    def _nothing_of(self, window: Window) -> AnyDataSet:
        """What takes the place of a window that is there no more."""
        keys, interval = self._stage.keys, self._stage.interval
        if keys is None:
            return DataSet(window, {}, interval=interval)
        return KeyedDataSet(window, keys.by, interval=interval)

    def _look(self) -> None:
        """See which windows sinks hold, and whether those can be computed that are there with the
        first row.

        :raises ConfigError: if not
        """
        history, stage, windows = self._history, self._stage, self._history.windows
        assert windows is not None  # there is a row
        interval, unit_ns = stage.interval, stage.interval.unit.nanos
        moves = stage.config.align is Align.START
        astray: list[tuple[int, int]] = []
        for place, sink in enumerate(self._sinks):
            for window in self._held_by(sink):
                if window in self._held or self._part.wants(windows, *window, unit_ns):
                    self._held.setdefault(window, Counter())[place] += 1
                elif moves and not windows.has(*window) and self._part.meets(*window, unit_ns):
                    astray.append(window)
        if moves:
            astray += (window for window in self._held if not windows.has(*window))
        if astray:
            raise ConfigError(
                f"{self._where}: sinks hold {window_shown(*min(astray), interval)}, which is none "
                f"of its windows: with Align.START these lie where the first row does, and rows "
                f"that were there have gone: bring them back"
            )
        first = windows.start_ns(history.first_end_ns) // unit_ns
        early = [window for window in self._held if window[1] * unit_ns < history.first_end_ns]
        if early:
            raise ConfigError(
                f"{self._where}: sinks hold windows of it from "
                f"{window_shown(*min(early), interval)} on, and those that can be computed begin "
                f"at {time_shown(first, interval)}, with the first row there is: give "
                f"start={first}, or bring back the rows before it"
            )
        if self._part.last_ns != NEVER:  # time has come that far
            history.until_ns, history.goes_on = self._part.last_ns, True
        elif self._part.end_ns != NEVER and self._held:
            history.until_ns = max(end for _, end in self._held) * unit_ns

    def _begin(self) -> None:
        """Before the first is written.

        :raises ConfigError: if no window can be computed
        """
        history, windows = self._history, self._history.windows
        assert windows is not None
        interval, unit_ns = self._stage.interval, self._stage.interval.unit.nanos
        first_ns = history.first_end_ns
        wanted_ns = max(first_ns, windows.after_ns(max(self._part.start_ns, first_ns - 1)))
        if wanted_ns > self._last_ns():
            first = time_shown(windows.start_ns(first_ns) // unit_ns, interval)
            raise ConfigError(
                f"{self._where}: no window that can be computed lies in this range: the first "
                f"begins at {first}: give another start= or end="
            )
        for renewal in self._renewals:
            renewal.begin()
