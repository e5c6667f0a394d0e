"""What a running pipeline shows of itself: last values, failures, and how fast it goes."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from run_task.observe._log import Log
from run_task.pipeline._archive import Archive
from run_task.pipeline._failures import Failures
from run_task.pipeline._key_watch import KeysShown, KeyWatch
from run_task.pipeline._numbers import as_number
from run_task.sinks import CallbackSink, Result, Sink
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet

if TYPE_CHECKING:
    from run_task.runner._stats import PipelineStats

_log = Log(__name__)

WATCHER: Final = "watcher"
"""What the sink of a watcher is called among others."""

HISTORY: Final = 60
"""How many values of a task are kept to be drawn."""

_NOTED_EVERY: Final = 0.05
"""How many seconds lie between values that are noted: more often, nobody sees them, and the
pipeline would pay for it."""

_SHARE: Final = 100
"""Looking at a window may take one part in so many of the time: of thousands of keys, that says how
often they are looked at."""

_RATE_OVER: Final = 5.0
"""Over how many seconds rates are taken."""


class WatcherSink(CallbackSink):
    """Shows results to a watcher, who is no reason for a pipeline to end, whatever goes wrong."""

    def write(self, result: Result, /) -> None:
        """Show a result."""
        try:
            super().write(result)
        except Exception as error:
            _log.error("%s is not shown: %r", result.stage, error, exc_info=error)

    def __repr__(self) -> str:
        return WATCHER


class StageMonitor:
    """What is known of a stage.

    :param key: a part of the keys that are asked for; None: none in particular
    """

    def __init__(self, key: str | None = None) -> None:
        self.values: dict[str, Any] = {}
        self.failing: Collection[str] = ()
        """The tasks that gave no result for the last window."""
        self.history: dict[str, deque[float]] = {}
        """By task: of those that were added since, too."""
        self.failed: int = 0
        """How many results are missing, of all windows."""
        self.keys: KeysShown | None = None
        """What there is to see of its keys; None: it has none, or none yet."""
        self.key_watch: KeyWatch = KeyWatch(key)
        self.note_next_at: float = -math.inf
        self.newest: AnyDataSet | None = None
        """What its last window gave."""
        self.newest_at: float | None = None
        """When that came, by the monotonic clock."""


class MonitoredPipeline(Protocol):
    """A pipeline, as far as a watcher asks it."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether it runs live."""
        ...

    @property
    def stats(self) -> PipelineStats:
        """How it does."""
        ...

    def sink(self, sink: Sink, /) -> object:
        """Let each DataSet be written to a sink."""
        ...


class Monitor:
    """Looks at what a pipeline gives, by a sink of all stages.

    :param pipeline: the pipeline, before it runs
    :param key: a part of the keys that are asked for; None: none in particular
    :param archive: keeps the numbers of the last hour; None: nobody draws them
    """

    def __init__(
        self, pipeline: MonitoredPipeline, key: str | None = None, archive: Archive | None = None
    ) -> None:
        self._archive = archive
        self._pipeline = pipeline
        self._mutex = threading.Lock()
        self._rates: deque[tuple[float, Mapping[str, int]]] = deque()
        self._key = key
        self._stages: dict[str, StageMonitor] = {}
        self.failures: Failures = Failures()
        """What tasks failed by."""
        self.began: float = time.monotonic()
        self._passed_on: Sequence[Callable[[str, AnyDataSet], object]] = ()
        pipeline.sink(WatcherSink(self.note))

    def pass_on(self, to: Callable[[str, AnyDataSet], object]) -> None:
        """Call a function with the name of a stage and what each window of it gave, from now on.

        :param to: it returns at once
        """
        self._passed_on = (*self._passed_on, to)

    def of(self, stage: str) -> StageMonitor:
        """What is known of a stage: also of one that was added just now.

        :param stage: its name
        """
        with self._mutex:
            return self._stages.setdefault(stage, StageMonitor(self._key))

    def note(self, stage: str, dataset: AnyDataSet) -> None:
        """Take what a window gave.

        :param stage: the name of the stage
        :param dataset: its results
        """
        for to in self._passed_on:
            to(stage, dataset)
        of_stage = self._stages.get(stage) or self.of(stage)
        errors = dataset.errors
        # By key, a task fails if it does for all of them.
        of_stage.failing = {name for name in errors if isinstance(name, str)} if errors else ()
        if errors:
            of_stage.failed += len(errors)
            self.failures.note(stage, errors.values())
        now = time.monotonic()
        of_stage.newest, of_stage.newest_at = dataset, now
        if self._archive is not None:
            self._archive.note(stage, dataset, now)
        if now < of_stage.note_next_at:
            return
        keys: KeysShown | None = None
        if isinstance(dataset, KeyedDataSet):
            keys = of_stage.key_watch.look(dataset)
            values: dict[str, Any] = {}
            drawn = {name: of_task.middle for name, of_task in keys.tasks.items()}
        else:
            values = dict(dataset)
            drawn = {name: as_number(value) for name, value in values.items()}
        took = time.monotonic() - now
        with self._mutex:
            of_stage.note_next_at = now + max(_NOTED_EVERY, took * _SHARE)
            of_stage.values, of_stage.keys = values, keys
            for name in {**of_stage.history, **drawn}:
                history = of_stage.history.setdefault(name, deque(maxlen=HISTORY))
                history.append(drawn.get(name, math.nan))

    def stats(self) -> PipelineStats:
        """How the pipeline does."""
        return self._pipeline.stats

    def rates(self, rows: Mapping[str, int]) -> Mapping[str, float]:
        """How many rows of each source come in a second: of one that was added since, none yet.

        :param rows: how many have come up to now, by the name of the source
        """
        now = time.monotonic()
        seen = self._rates
        seen.append((now, rows))
        while len(seen) > 2 and now - seen[0][0] > _RATE_OVER:
            seen.popleft()
        since, before = seen[0]
        passed = now - since
        if passed < 0.5:  # of the beginning, when all that was there came at once
            return dict.fromkeys(rows, 0.0)
        return {name: (new - before.get(name, new)) / passed for name, new in rows.items()}

    def recent(self, stage: str) -> tuple[Mapping[str, Any], Mapping[str, Sequence[float]]]:
        """The last values of a stage's tasks, and the numbers among those before."""
        of_stage = self.of(stage)
        with self._mutex:
            history = {name: tuple(values) for name, values in of_stage.history.items()}
            return of_stage.values, history
