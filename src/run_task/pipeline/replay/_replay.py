"""A replay as its caller has it: its results, one after another, and what came of its rows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._fates import Fates
from run_task.pipeline._stage import AnyStage, BaseStage
from run_task.runner._stats import SourceStats

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class ReplaySummary:
    """What a replay or resume has done up to now.

    :param sources: what has become of the rows of each source, by its name
    :param windows: how many windows it has given
    :param stages: how many of each stage, by its name
    :param seconds: how long it has taken, from the first result that was asked for
    :param warnings: for each source of which most rows went the wrong way, how many, and the
        likely cause
    """

    sources: Mapping[str, SourceStats]
    windows: int
    stages: Mapping[str, int]
    seconds: float
    warnings: Sequence[str]


class Replay(Iterator[tuple[str, Any]]):
    """The results of a replay or resume: the name of a stage and a DataSet of it, again and again;
    of a stage by key, a KeyedDataSet. A type checker cannot know which: :meth:`of` gives those of
    one stage, with the types of its results.

    It goes on whenever the next one is asked for. Who leaves before the end closes it, or has it
    in a ``with`` block; that flushes the sinks.

    :param results: what it gives
    :param stages: the stages
    :param fates: counts what becomes of the rows of each source
    """

    def __init__(
        self,
        results: Generator[tuple[str, Any]],
        stages: Sequence[AnyStage],
        fates: Sequence[Fates],
    ) -> None:
        self._results = results
        self._fates = fates
        self._stages = stages
        self._windows = Counter(dict.fromkeys((stage.name for stage in stages), 0))
        self._begun: float | None = None  # by the monotonic clock
        self._took: float | None = None

    def of(self, stage: BaseStage[Any, Any, R], /) -> Iterator[R]:
        """The DataSets of one stage, as they are computed.

        ::

            for dataset in pipeline.replay().of(bars):
                print(dataset[vwap]["BTC"])

        Those of other stages go where they are to go, and are left out here.

        :param stage: the stage
        :raises ConfigError: if it is none of this replay
        """
        if not any(stage is one for one in self._stages):
            names = ", ".join(repr(one.name) for one in self._stages)
            raise ConfigError(f"of({brief(stage)}): it is no stage of this replay, but {names}")
        return (dataset for name, dataset in self if name == stage.name)

    def __next__(self) -> tuple[str, Any]:
        if self._begun is None:
            self._begun = time.monotonic()
        try:
            result = next(self._results)
        except BaseException:
            self._end()
            raise
        self._windows[result[0]] += 1
        return result

    @property
    def summary(self) -> ReplaySummary:
        """What it has done up to now. At any time, from any thread."""
        stages = dict(self._windows)
        return ReplaySummary(
            sources={fates.policy.name: fates.stats() for fates in self._fates},
            windows=sum(stages.values()),
            stages=stages,
            seconds=self._seconds(),
            warnings=[warning for fates in self._fates for warning in fates.warnings()],
        )

    def close(self) -> None:
        """End it: sources are left, and sinks flushed. Any number of times.

        :raises Exception: what a source or a sink raises then
        """
        self._end()
        self._results.close()

    def _end(self) -> None:
        self._took = self._seconds()

    def _seconds(self) -> float:
        if self._took is not None:
            return self._took
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Replay: {sum(self._windows.values()):,} windows given>"
