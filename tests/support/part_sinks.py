"""Sinks to which shards write, and of which a test says when that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.support.threads import PATIENCE

from run_task.errors import SinkError
from run_task.sinks import Result, SqlSink, StageOutput

FAULTS: dict[str, Callable[[Result], object]] = {}
"""By name, what is called in a shard with a result before it is written there; it may raise."""


class HomeSink(SqlSink):
    """A table to which shards write, and of which is known what was written at home.

    :ivar faults: the name of what is called in a shard
    :ivar at_home: the results that were written at home
    :ivar fails: how many times it is still to raise when it is flushed
    :ivar waits: set: it does not wait there
    """

    faults = ""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.at_home: list[Result] = []
        self.fails = 0
        self.waits = threading.Event()
        self.waits.set()

    def write(self, result: Any, *more: Any) -> None:
        self.at_home.append(result)
        super().write(result, *more)

    def flush(self) -> None:
        assert self.waits.wait(PATIENCE)
        if self.fails:
            self.fails -= 1
            raise SinkError("it is away")
        super().flush()

    def for_shards(self, output: StageOutput, /, *, other_machines: bool) -> Callable[[], Any]:
        opener = super().for_shards(output, other_machines=other_machines)
        return partial(FaultySink, opener, self.faults)

    @property
    def keys_at_home(self) -> set[Any]:
        """Of which keys something was written at home."""
        return {key for one in self.at_home for key in _keys(one)}


class FaultySink:
    """A sink in a shard that raises where the test says so.

    :param opener: opens the sink
    :param faults: the name of what is called with each result
    """

    def __init__(self, opener: Callable[[], SqlSink], faults: str) -> None:
        self._sink = opener()
        self._faults = FAULTS.get(faults)
        self._result: Result | None = None

    def write(self, result: Result) -> None:
        self._result = result
        self._sink.write(result)

    def flush(self) -> None:
        if self._faults is not None and self._result is not None:
            try:
                self._faults(self._result)
            except BaseException:
                self._sink._waiting.clear()  # pyright: ignore[reportPrivateUsage]  it is lost
                raise
        self._sink.flush()

    def begin(self, pipeline: str) -> None:
        self._sink.begin(pipeline)

    @property
    def is_of_one_stage(self) -> bool:
        return self._sink.is_of_one_stage

    def declare(self, output: StageOutput) -> None:
        self._sink.declare(output)

    def close(self) -> None:
        self._sink.close()


def _keys(result: Result) -> Any:
    dataset: Any = result.dataset
    return dataset.keys_of_rows
