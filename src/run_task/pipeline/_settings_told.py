"""How sources, sinks and the pipeline are kept and tried again, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from run_task.observe._format import brief, named, seconds
from run_task.pipeline._fates import SourcePolicy
from run_task.pipeline._sink_policy import SinkPolicy
from run_task.sources._faults import OnFault
from run_task.sources._partitioned import Undivided, partitions_in
from run_task.sources._positioned import positioned
from run_task.sources._restarted import RestartedSource
from run_task.sources.journal._journaled import JournaledSource
from run_task.time._length import in_short
from run_task.time._retry import Retry, Then


def of_checkpoint(store: object, every: float) -> str:
    """Where checkpoints are kept, and how often they are made."""
    return f"checkpoint every {seconds(every)} in {named(store)}"


def of_source(source: Any, policy: SourcePolicy) -> Sequence[str]:
    """What was said of a source."""
    found: list[str] = []
    inner: Any = source
    while isinstance(inner, JournaledSource | RestartedSource):
        if isinstance(inner, JournaledSource):
            found.append(f"journal {brief(inner.journal)}")
        else:
            found.append(_of_retry(inner.retry))
        inner = inner.inner
    if (partitions := partitions_in(source)) is not None:
        if isinstance(partitions, Undivided):
            found.append("partitioned: read by shards, which alone see a key that comes in two")
        else:
            count = len(partitions.parts)
            parts = "1 part" if count == 1 else f"{count:,} parts"
            found.append(f"partitioned: {parts}, read by shards")
    if policy.dedupe is not None:
        names = ", ".join(policy.dedupe.names)
        found.append(f"without rows that come again by {names} for {in_short(policy.dedupe.kept)}")
    if positioned(source) is not None:
        found.append(f"waited for up to {seconds(policy.idle_ns / 1e9)} while it is behind")
    if policy.on_bad_row is OnFault.RAISE:
        found.append("ends with a bad row")
    if policy.dead_letters is not None:
        found.append("has dead letters")
    return found


def of_sink(policy: SinkPolicy) -> Sequence[str]:
    """What was said of a sink."""
    found: list[str] = []
    if policy.retry is not None:
        found.append(_of_retry(policy.retry))
    if policy.spool is not None:
        found.append(f"spool {str(policy.spool.path)!r}")
    if policy.letters is not None:
        found.append("has dead letters")
    return found


def _of_retry(retry: Retry) -> str:
    times = "for ever" if retry.attempts is None else f"up to {retry.attempts:,} times"
    then = ", then leaves out" if retry.then is Then.DROP else ""
    return f"tried {times}{then}"
