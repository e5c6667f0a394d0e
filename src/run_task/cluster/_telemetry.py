"""What OpenTelemetry is told of shards, in a program that has set it up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from run_task.observe._log import Log
from run_task.runner._stats import ShardStats
from run_task.runner._telemetry import meter_if_set_up

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

_log = Log(__name__)

_NOTHING: Final = ShardStats()


class ShardTelemetry:
    """Tells how each shard does, and what it has done since it was last told.

    :param pipeline: the pipeline's name
    :param stats: gives how each shard does, in order
    :param is_replay: whether they go through a history
    :param meter: who takes counts
    """

    def __init__(
        self,
        pipeline: str,
        stats: Callable[[], Mapping[str, ShardStats]],
        is_replay: bool,
        meter: Meter,
    ) -> None:
        self._pipeline = pipeline
        self._stats = stats
        self._about: dict[str, str | bool | int] = {"run_task.pipeline": pipeline}
        if is_replay:
            self._about["run_task.replay"] = True
        self._told: Mapping[str, ShardStats] = {}
        self._counters = {
            name: meter.create_counter(f"run_task.shard.{name}", f"{{{unit}}}", about)
            for name, unit, about in (
                ("rows", "row", "Rows that a shard was sent"),
                ("windows", "window", "Windows that a shard has run"),
                ("results", "result", "Results that a shard has given"),
                ("restarts", "restart", "How often a shard was started again"),
            )
        }
        self._running = meter.create_gauge(
            "run_task.shard.running", "1", "Whether a shard is there: 1 or 0"
        )
        self._keys = meter.create_gauge("run_task.shard.keys", "{key}", "Keys of a shard")
        self._windows_behind = meter.create_gauge(
            "run_task.shard.windows.behind", "{window}", "Windows that went without a shard"
        )
        self._behind = meter.create_gauge(
            "run_task.shard.behind", "s", "For how long a shard is waited for"
        )
        self._broken = False

    @classmethod
    def if_set_up(
        cls, pipeline: str, stats: Callable[[], Mapping[str, ShardStats]], is_replay: bool
    ) -> ShardTelemetry | None:
        """None where the program has no OpenTelemetry, or has not set it up."""
        meter = meter_if_set_up()
        return None if meter is None else cls(pipeline, stats, is_replay, meter)

    def tell(self) -> None:
        """Tell how they do."""
        if self._broken:
            return
        try:
            told, self._told = self._told, self._stats()
            for number, (name, now) in enumerate(self._told.items()):
                about = {**self._about, "run_task.shard": number}
                before = told.get(name, _NOTHING)
                for count, counter in self._counters.items():
                    counter.add(getattr(now, count) - getattr(before, count), about)
                node = now.node or before.node
                if before.node not in ("", node):
                    self._running.set(0, {**about, "run_task.node": before.node})
                self._running.set(int(now.is_running), {**about, "run_task.node": node})
                self._keys.set(now.keys, about)
                self._windows_behind.set(now.windows_behind, about)
                self._behind.set(now.seconds_behind, about)
        except Exception as error:  # of the metrics library
            self._broken = True
            _log.error("%s: OpenTelemetry gets nothing more of shards: %r", self._pipeline, error)
