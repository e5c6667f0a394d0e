"""The results of a replay on their way out: to sinks, and to whoever iterates over them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from run_task.errors import ConfigError
from run_task.pipeline._graph import AnyStage
from run_task.pipeline.live._sink_thread import FLUSH_EVERY
from run_task.pipeline.replay._progress_bar import Progress, Traveller
from run_task.sinks._protocol import Sink
from run_task.tasks._dataset import DataSet

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def written(
    name: str,
    results: Generator[tuple[AnyStage, DataSet[Any]]],
    sinks: Sequence[Sink],
    traveller: Traveller,
) -> Generator[tuple[str, DataSet[Any]]]:
    """Write results to the sinks of their stages, and hand them on.

    :param name: the pipeline's name
    :param results: the results
    :param sinks: all sinks there are, to be flushed
    :param traveller: tells how far they are
    """
    flush_at = time.monotonic() + FLUSH_EVERY
    with contextlib.ExitStack() as opened:
        for sink in sinks:
            opened.callback(sink.flush)  # each, whatever else goes wrong
        opened.enter_context(contextlib.closing(results))
        progress = opened.enter_context(Progress(name, traveller))
        for stage, dataset in results:
            for sink in stage.sinks:
                sink.write(stage.name, dataset)
            progress.note(dataset.timestamp * stage.interval.unit.nanos)
            yield stage.name, dataset
            if sinks and time.monotonic() >= flush_at:
                for sink in sinks:
                    sink.flush()
                flush_at = time.monotonic() + FLUSH_EVERY


def instant(given: int | datetime | None, stages: Iterable[AnyStage], default: float) -> float:
    """A point in time, in nanoseconds since the Unix epoch.

    :param given: a datetime with a time zone, or an int in the unit of the stages' intervals
    :param stages: the stages
    :param default: what None stands for
    :raises ConfigError: if it is not clear which point in time that is
    """
    if given is None:
        return default
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ConfigError(f"{given!r} has no time zone: give it one, such as datetime.UTC")
        return (given - _EPOCH) // timedelta(microseconds=1) * 1000
    units = {stage.interval.unit for stage in stages}
    if type(given) is not int or len(units) > 1:
        told = ", ".join(sorted(unit.name.lower() for unit in units))
        raise ConfigError(
            f"{given!r}: a time is a datetime, or an int where all stages have one unit; here "
            f"they are in {told}"
        )
    return given * units.pop().nanos
