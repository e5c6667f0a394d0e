"""Windows of a stage are computed again and written to its sinks, while it runs or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from run_task.executors._states import States
from run_task.pipeline._branches import branched
from run_task.pipeline._delivery import Delivery
from run_task.pipeline._fates import Fates
from run_task.pipeline._refusals import Omission, Refusals
from run_task.pipeline._sink_policy import SinkPolicy
from run_task.pipeline._sink_start import begin_again
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.live._run import LiveRun
from run_task.pipeline.replay._copies import Copies
from run_task.pipeline.replay._history import History, WantedWindows
from run_task.pipeline.replay._origins import Origins
from run_task.pipeline.replay._output import write_results
from run_task.pipeline.replay._sink_replacement import RecomputeSummary, SinkReplacement
from run_task.sinks._protocol import DurableSink, Sink


def recomputed(
    pipeline: str,
    stage: AnyStage,
    sinks: Sequence[DurableSink],
    origins: Origins,
    copies: Copies,
    part: WantedWindows,
    fates: Sequence[Fates],
    policy_of: Callable[[Sink], SinkPolicy],
    refusals: Refusals,
    run: LiveRun | None,
) -> RecomputeSummary:
    """Compute windows again, and put their results in the place of those that sinks hold.

    :param pipeline: the pipeline's name
    :param stage: the stage whose windows they are
    :param sinks: where they go
    :param origins: what is run and read for them
    :param copies: the data of their own
    :param part: which windows
    :param fates: count what becomes of the rows
    :param policy_of: what was said of a sink
    :param refusals: counts the results that sinks do not get
    :param run: the live run, whose threads write to the sinks; None: it does not run
    """
    ways = branched(origins.sources, _itself)
    history = History(
        *(origins.stages, ways, fates, copies.of, _new_states),
        apart=copies.is_apart,
        filled=origins.filled,
    )
    for counts in fates:
        counts.begin()
    replacing = SinkReplacement(history, part, sinks, begin_again(sinks, pipeline, origins.stage))
    before = refusals.count(Omission.REFUSED)
    if run is None:
        ways_out = [Delivery(sink, policy_of(sink), refusals) for sink in sinks]
        written = write_results(pipeline, replacing.given(), ways_out, history, refusals)
        with closing(written):
            for _, datasets in written:
                for dataset in datasets:
                    replacing.note(dataset)
    else:
        with closing(replacing.given()) as results:
            run.write_again(stage, sinks, results, replacing.note)
    return replacing.end(fates, refusals.count(Omission.REFUSED) - before)


def _new_states(_stage: AnyStage) -> States:
    return States()


def _itself(shared: Any) -> Any:
    return shared
