"""What a running pipeline shows of itself: last values, failures, and how fast it goes."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from run_task.observe._format import error_shown
from run_task.pipeline._key_watch import KeysShown, KeyWatch
from run_task.pipeline._numbers import as_number
from run_task.sinks import CallbackSink
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet

if TYPE_CHECKING:
    from run_task.pipeline import Pipeline
    from run_task.runner._stats import PipelineStats

HISTORY: Final = 60
"""How many values of a task are kept to be drawn."""

_MOST_FAILURES: Final = 100
"""How many different ones are kept: a message with a number in it is another one each time."""

_NOTED_EVERY: Final = 0.05
"""How many seconds lie between values that are noted: more often, nobody sees them, and the
pipeline would pay for it."""

_SHARE: Final = 100
"""Looking at a window may take one part in so many of the time: of thousands of keys, that says how
often they are looked at."""

_RATE_OVER: Final = 5.0
"""Over how many seconds rates are taken."""


class TaskFailure(NamedTuple):
    """What a task failed by."""

    stage: str
    task: str
    what: str


@dataclass(frozen=True)
class Occurrences:
    """How often something was seen.

    :param at: when it was last, in seconds since the Unix epoch
    :param times: how many times
    :param number: the how many-th of all different things it was
    """

    at: float
    times: int
    number: int


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


class Monitor:
    """Looks at what a pipeline gives, by a sink of all stages.

    :param pipeline: the pipeline, before it runs
    :param key: a part of the keys that are asked for; None: none in particular
    """

    def __init__(self, pipeline: Pipeline, key: str | None = None) -> None:
        self._pipeline = pipeline
        self._mutex = threading.Lock()
        self._rates: deque[tuple[float, Mapping[str, int]]] = deque()
        self._key = key
        self._stages: dict[str, StageMonitor] = {}
        self._failures: dict[TaskFailure, Occurrences] = {}  # the latest last
        self._different = 0
        self.began: float = time.monotonic()
        self._sink = CallbackSink(self.note)
        pipeline.sink(self._sink)

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
        of_stage = self.of(stage)
        errors = dataset.errors
        # By key, a task fails if it does for all of them.
        of_stage.failing = {name for name in errors if isinstance(name, str)} if errors else ()
        if errors:
            of_stage.failed += len(errors)
            for error in itertools.islice(errors.values(), _MOST_FAILURES):
                self._note(TaskFailure(stage, error.task, error_shown(error)))
        now = time.monotonic()
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

    def _note(self, failure: TaskFailure) -> None:
        with self._mutex:
            before = self._failures.pop(failure, None)
            if before is None:
                self._different += 1
            times, number = (before.times, before.number) if before else (0, self._different)
            self._failures[failure] = Occurrences(time.time(), times + 1, number)
            if len(self._failures) > _MOST_FAILURES:
                del self._failures[next(iter(self._failures))]

    def latest_failures(self, most: int) -> Sequence[tuple[TaskFailure, Occurrences]]:
        """What tasks failed by, the latest first; the same again and again is told once.

        :param most: how many at most
        """
        with self._mutex:
            return list(itertools.islice(reversed(self._failures.items()), most))

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
