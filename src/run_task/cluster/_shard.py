"""A shard: the stages by key of a pipeline, over the rows of some of the keys.

It has no clock, no sources, and no sinks but those to which it is told to write what it has of a
window. What it does depends on the requests alone that it is sent, one after another: so it gives
the same wherever it is, and one that replaces it goes on as it would have done. A window is run by
what runs it in a pipeline without shards: a crew, over what ``bound_of`` makes of a view.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from run_task._version import __version__
from run_task._window import Window
from run_task.cluster._bytes import joined, of_bytes, stand_in_for
from run_task.cluster._merging import ShardMerging, ShardPart
from run_task.cluster._messages import (
    Input,
    RunWindow,
    ShardFailed,
    ShardReply,
    ShardRequest,
    ShardResults,
    StageSetup,
)
from run_task.cluster._reading import PartitionReader, rows_at
from run_task.cluster._replica import Replica
from run_task.cluster._results import PackedResults
from run_task.cluster._writing import ShardSink
from run_task.data import Atom
from run_task.data._several import of_several
from run_task.data.series._keyed_view import KeyedView
from run_task.data.series._schema import NewRows
from run_task.executors._states import States, Stepper, without_steps
from run_task.executors.processes._exceptions import portable
from run_task.runner._config import RunnerConfig
from run_task.runner._keys import Bound, Keys, bound_of, crew_of
from run_task.tasks._dataset import Roster
from run_task.tasks._keyed import KeyedDataSet
from run_task.tasks._tick import Tick
from run_task.time._calendar import Interval


class KeyShard:
    """The stages by key, for some of the keys."""

    def __init__(self) -> None:
        self._replicas: dict[int, Replica] = {}
        self._stages: dict[int, _ShardStage] = {}
        self._readers: dict[int, PartitionReader] = {}

    def handle(self, request: ShardRequest) -> ShardReply:
        """Do what a request asks for."""
        try:
            return self._handle(request)
        except Exception as error:
            return ShardFailed(joined(portable(error)))

    def _handle(self, request: ShardRequest) -> ShardReply:
        for stage in request.gone:
            gone = self._stages.pop(stage, None)
            if gone is not None:
                gone.close()
        for feed in request.dropped:
            self._replicas.pop(feed, None)
        for partition in request.partitions:
            self._readers[partition.partition] = PartitionReader(partition)
        for series in request.series:
            by_place = self._rows_at if series.by_place else None
            self._replicas[series.feed] = Replica(series.pattern, by_place)
        for feed, changes in request.changes:
            self._replicas[feed].apply(changes)
        if request.setup is not None:
            before = self._stages.pop(request.setup.stage, None)
            if before is not None:
                before.close()
            self._stages[request.setup.stage] = _ShardStage(request.setup, self._replicas)
        if request.read is not None:
            return self._readers[request.read.partition].read(request.read)
        if request.run is None:
            return None
        return self._stages[request.run.stage].run(request.run)

    def _rows_at(self, places: NDArray[np.int64]) -> NewRows:
        return rows_at(self._readers, places)

    @property
    def kept(self) -> int:
        """How many rows of partitions it keeps beside those that windows see."""
        return sum(reader.kept for reader in self._readers.values())

    def close(self) -> None:
        """Let go of what runs tasks, and of what is read."""
        for stage in self._stages.values():
            stage.close()
        self._stages.clear()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def versions() -> Mapping[str, str]:
    """What has to be the same in a driver and its shards."""
    return {
        "run-task": __version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "NumPy": np.__version__,
    }


class _ShardStage:
    """A stage as a shard runs it.

    :param setup: what it is
    :param replicas: the series that the shard has, by feed
    """

    def __init__(self, setup: StageSetup, replicas: Mapping[int, Replica]) -> None:
        stand_in_for(setup.modules)
        rest: tuple[Interval, RunnerConfig, Keys] = of_bytes(setup.rest)
        interval, config, keys = rest
        tasks = [of_bytes(task) for task in setup.tasks]
        self._roster = Roster(task.name for task in tasks)
        self._names: Sequence[str] = self._roster.names
        self._values: dict[int, Any] = {}
        self._inputs: Sequence[Input] = setup.inputs
        self._replicas = replicas
        members = [
            replicas[number].series if what == "feed" else Atom(None)
            for what, number in setup.inputs
        ]
        self._single = len(members) == 1
        data: Any = members[0] if self._single else of_several(members)
        self._states = States()
        bound = self._states.bind(tasks)
        self._steppers = {i: task for i, task in enumerate(bound) if isinstance(task, Stepper)}
        self._of = data, interval, config, keys, self._states
        self._bound: Bound | None = None  # until it begins
        self._crew = crew_of(bound, *self._of)
        self._crew.open()
        self._keys: Sequence[Any] | None = None  # those of the reply before
        self._sinks = {sink.sink: ShardSink(sink) for sink in setup.sinks}
        self._interval = interval
        self._merging = ShardMerging(self._names, self._steppers)
        for sink in self._sinks.values():
            sink.open()

    def _begin(self, begin: bytes) -> None:
        """Go on from states of before."""
        states, known = of_bytes(begin)
        self._states.know(known)
        self._states.load(states, by_key=True)
        self._bound = bound_of(*self._of)

    def run(self, run: RunWindow) -> ShardResults | None:
        """Run a window."""
        if run.begin is not None:
            self._begin(run.begin)
        for place, value in run.values.items():
            self._values[place] = of_bytes(value)
        views = [self._view(run, one, place) for place, one in enumerate(self._inputs)]
        start, end = run.window
        assert self._bound is not None
        view = self._bound(views[0] if self._single else tuple(views), start, end)
        if view is None:
            return None
        assert isinstance(view, KeyedView)
        dataset = self._crew.run(Tick(view, start, end))
        assert isinstance(dataset, KeyedDataSet)
        packed = PackedResults(self._names, view, dataset)
        keys = view.keys
        for task, steps in packed.steps.items():
            states = self._steppers[task].states
            for key, step in zip(keys, steps, strict=True):
                if step is not None:
                    states[key] = step.state
        unwritten = self._unwritten(run, packed, dataset)
        message = packed.message(self._keys, unwritten)
        self._keys = keys
        return message

    def _unwritten(
        self, run: RunWindow, packed: PackedResults, dataset: KeyedDataSet[Any, Any]
    ) -> Mapping[int, str]:
        """Write a window to sinks. Returns those that have it not, and why.

        What is written is what the driver makes of the message, by the code by which it does.
        """
        if not run.sinks:
            return {}
        message = packed.message(None, {})
        keys = message.keys
        assert keys is not None
        part = ShardPart(keys, message)
        merged = self._merging.merge(Window(*run.window), lambda: keys, [part], whole=True)
        noted = merged.keys, merged.flat, merged.seconds, message.took, merged.errors or None
        made = KeyedDataSet.of((*run.window, 0), (), self._roster, dataset.by, *noted)
        made._interval = self._interval  # pyright: ignore[reportPrivateUsage]  as a runner does
        given: Any = without_steps(made) if self._steppers else made
        found = {number: self._sinks[number].write(given) for number in run.sinks}
        return {number: why for number, why in found.items() if why is not None}

    def _view(self, run: RunWindow, of: Input, place: int) -> Any:
        what, number = of
        if what != "feed":
            return self._values[place]
        replica = self._replicas[number]
        if number in run.views:
            return replica.view_of(run.views[number])
        return replica.view(run.marks[number])

    def close(self) -> None:
        self._crew.close(0.0)
        for sink in self._sinks.values():
            sink.close()
