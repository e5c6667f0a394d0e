"""The results of a replay on their way out: to sinks, and to the caller that iterates over them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence

from run_task.pipeline._refusals import Refusals
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.live._sink_thread import FLUSH_EVERY
from run_task.pipeline.replay._history import DataSetBatch
from run_task.pipeline.replay._progress_bar import ProgressBar, ReplayPosition
from run_task.sinks._protocol import Result, Sink


def write_results(
    name: str,
    results: Generator[tuple[AnyStage, DataSetBatch]],
    sinks: Sequence[Sink],
    position: ReplayPosition,
    refusals: Refusals,
    tell: Callable[[], None],
) -> Generator[tuple[str, DataSetBatch]]:
    """Write results to the sinks of their stages, and hand them on.

    :param name: the pipeline's name
    :param results: the results
    :param sinks: all sinks there are, to be flushed
    :param position: tells how far they are
    :param refusals: counts the results that sinks cannot store
    :param tell: called in the end
    """
    flush_at = time.monotonic() + FLUSH_EVERY
    with contextlib.ExitStack() as opened:
        opened.callback(tell)
        opened.callback(refusals.log_rest)
        for sink in sinks:
            opened.callback(sink.flush)  # each, whatever else goes wrong
        opened.enter_context(contextlib.closing(results))
        progress = opened.enter_context(ProgressBar(name, position))
        for stage, datasets in results:
            if not sinks and not progress.shown:
                yield stage.name, datasets
                continue
            for dataset in datasets:
                if stage.sinks:
                    result = Result.of(name, stage.name, dataset)
                    for sink in stage.sinks:
                        refusals.write(sink, result)
                if progress.shown:
                    progress.note(dataset.timestamp * stage.interval.unit.nanos)
                yield stage.name, (dataset,)
                if sinks and time.monotonic() >= flush_at:
                    for sink in sinks:
                        sink.flush()
                    flush_at = time.monotonic() + FLUSH_EVERY
