"""A replay as its caller has it: its results, one after another, and what came of its rows."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import length_hint
from types import TracebackType
from typing import Any, TypeVar

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._fates import Fates
from run_task.pipeline._stage import AnyStage, BaseStage
from run_task.pipeline.replay._history import DataSetBatch
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
        results: Generator[tuple[str, DataSetBatch]],
        stages: Sequence[AnyStage],
        fates: Sequence[Fates],
    ) -> None:
        self._results = results
        self._fates = fates
        self._stages = stages
        self._tally = _ReplayProgress(stage.name for stage in stages)
        self._given = self._tally.given(results)

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

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._given

    def __next__(self) -> tuple[str, Any]:
        return next(self._given)

    @property
    def summary(self) -> ReplaySummary:
        """What it has done up to now. At any time, from any thread."""
        stages = self._tally.windows()
        return ReplaySummary(
            sources={fates.policy.name: fates.stats() for fates in self._fates},
            windows=sum(stages.values()),
            stages=stages,
            seconds=self._tally.seconds(),
            warnings=[warning for fates in self._fates for warning in fates.warnings()],
        )

    def close(self) -> None:
        """End it: sources are left, and sinks flushed. Any number of times.

        :raises Exception: what a source or a sink raises then
        """
        self._tally.end()
        self._given.close()
        self._results.close()  # which the other has not begun, if nobody asked for a result

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
        return f"<Replay: {sum(self._tally.windows().values()):,} windows given>"


class _ReplayProgress:
    """How many windows a replay has given, and how long it has taken.

    It is none of the Replay's own: a generator that referred to that, and it to the generator,
    would be closed late when the Replay is dropped.

    :param stages: the names of the stages
    """

    __slots__ = ("_begun", "_took", "_under_way", "_windows")

    def __init__(self, stages: Iterable[str]) -> None:
        self._windows = dict.fromkeys(stages, 0)
        self._under_way: tuple[str, int, repeat[str]] | None = None
        self._begun: float | None = None  # by the monotonic clock
        self._took: float | None = None

    def given(self, results: Iterable[tuple[str, DataSetBatch]]) -> Generator[tuple[str, Any]]:
        """Give results one after another, with no code between one and the next of a batch."""
        self._begun = time.monotonic()
        try:
            for name, datasets in results:
                # It counts down as DataSets are given; it ends first, so that none is lost.
                names = repeat(name, len(datasets))
                after = self._windows[name] + len(datasets)
                self._under_way = name, after, names
                yield from zip(names, datasets)
                self._windows[name] = after
        finally:
            self._windows, self._under_way = self.windows(), None
            self.end()

    def windows(self) -> dict[str, int]:
        """How many windows of each stage were given."""
        under_way = self._under_way
        windows = dict(self._windows)
        if under_way is not None:
            name, after, names = under_way
            windows[name] = max(windows[name], after - length_hint(names))
        return windows

    def end(self) -> None:
        """It takes no longer."""
        self._took = self.seconds()

    def seconds(self) -> float:
        """How long it has taken."""
        if self._took is not None:
            return self._took
        return 0.0 if self._begun is None else time.monotonic() - self._begun
