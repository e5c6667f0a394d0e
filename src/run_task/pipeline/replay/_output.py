"""The results of a replay on their way out: to sinks, and to the caller that iterates over them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence

from run_task.pipeline._delivery import Delivery
from run_task.pipeline._refusals import Refusals
from run_task.pipeline._result_parts import result_for
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.live._sink_thread import FLUSH_EVERY
from run_task.pipeline.replay._history import ComputedBatch, DataSetBatch
from run_task.pipeline.replay._progress_bar import ProgressBar, ReplayPosition
from run_task.sinks._protocol import ResultBatch


def write_results(
    name: str,
    results: Generator[tuple[AnyStage, DataSetBatch]],
    sinks: Sequence[Delivery],
    position: ReplayPosition,
    refusals: Refusals,
    tell: Callable[[], None] | None = None,
) -> Generator[tuple[str, DataSetBatch]]:
    """Write results to the sinks of their stages, and hand them on.

    :param name: the pipeline's name
    :param results: the results
    :param sinks: the ways to all sinks there are, which are flushed
    :param position: tells how far they are
    :param refusals: counts the results that sinks do not get
    :param tell: called in the end
    """
    flush_at = time.monotonic() + FLUSH_EVERY
    to = {id(delivery.sink): delivery for delivery in sinks}
    with contextlib.ExitStack() as opened:
        if tell is not None:
            opened.callback(tell)
        opened.callback(refusals.log_rest)
        for sink in sinks:
            opened.enter_context(sink.replayed())  # each, whatever else goes wrong
        opened.enter_context(contextlib.closing(results))
        progress = opened.enter_context(ProgressBar(name, position))
        for stage, datasets in results:
            if not sinks and not progress.shown:
                yield stage.name, datasets
                continue
            with contextlib.closing(_Bulk(name, stage, datasets, to)) as bulk:
                for dataset in datasets:
                    for other in bulk.others:
                        result = result_for(other.sink, name, stage.name, dataset)
                        if result is None:
                            other.note_written()
                        else:
                            other.write(result)
                    bulk.given += 1
                    if progress.shown:
                        progress.note(dataset.timestamp * stage.interval.unit.nanos)
                    yield stage.name, (dataset,)
                    if sinks and time.monotonic() >= flush_at:
                        bulk.write()
                        for sink in sinks:
                            sink.flush()
                        flush_at = time.monotonic() + FLUSH_EVERY


class _Bulk:
    """What of a batch is written to sinks by column: as much as was given to the caller, so that a
    replay that is left has written what it gave.

    :ivar others: the sinks to which each DataSet is written
    :ivar given: how many DataSets were given
    """

    def __init__(
        self, name: str, stage: AnyStage, datasets: DataSetBatch, to: Mapping[int, Delivery]
    ) -> None:
        self.others: Sequence[Delivery] = [to[id(sink)] for sink in stage.sinks]
        self.given = 0
        self._written = 0
        self._of = name, stage.name, stage.interval
        self._columns = datasets.columns if isinstance(datasets, ComputedBatch) else None
        self._sinks: Sequence[Delivery] = ()
        if self._columns is not None:
            self._sinks = [sink for sink in self.others if sink.takes_many]
            self.others = [sink for sink in self.others if not sink.takes_many]

    def write(self) -> None:
        """Write what was given since it was called last."""
        begin, self._written = self._written, self.given
        if self._columns is None or begin == self.given:
            return
        batch = ResultBatch(*self._of, *self._columns.some(begin, self.given))
        for sink in self._sinks:
            sink.write_many(batch)

    def close(self) -> None:
        """Write the rest."""
        self.write()
