"""What the durable sinks have in common: one thread at a time, and a pipeline's name."""

from __future__ import annotations

import contextlib
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from run_task._window import Window
from run_task.errors import ConfigError, SinkError
from run_task.sinks._protocol import Result, Row, StageOutput
from run_task.sinks._record import WindowKey, is_storable
from run_task.sinks._versions import VersionStore
from run_task.sinks.encoding._records import TypesGiven, named_types
from run_task.sinks.encoding._tag import Types, UndecodableError
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.tasks._task import TaskVersion
from run_task.time._interval import TimeUnit

_MOST_WAITING: Final = 1_024
"""How many windows wait for a flush at most, so that memory stays bounded without one."""


class Recorded(Protocol):
    """A window's results, ready to be stored."""

    @property
    def key(self) -> WindowKey:
        """What is replaced by a later window of the same."""
        ...

    @property
    def unit(self) -> str | None:
        """The unit of its times."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be stored of it."""
        ...

    @property
    def elsewhere(self) -> Collection[Any] | None:
        """The keys of it that others write; None: all but its own."""
        ...


class ResultForm(Protocol):
    """How results become what a sink stores, and back: one for each layout."""

    def begin(self, pipeline: str, /) -> str | None:
        """Why results of a pipeline do not belong into the sink; None: they do."""
        ...

    @property
    def is_of_one_stage(self) -> bool:
        """Whether it has results of one stage alone."""
        ...

    def declare(self, output: StageOutput, /) -> str | None:
        """What a stage gives from now on. Why that has no place here; None: it has one."""
        ...

    def record(self, result: Result, /) -> Recorded:
        """A result, ready to be stored.

        :raises SinkError: if it cannot be stored
        """
        ...

    def has_result(self, row: Row, /) -> bool:
        """Whether a row that was read tells of a result or an error of its task."""
        ...

    def value(self, stored: Any, types: Types, /) -> Any:
        """The value of a row that was read.

        :param types: of the reader's, by the names under which they are stored
        :raises UndecodableError: if it does not become what was stored
        """
        ...


class Durable(ABC):
    """A sink that keeps windows until they are flushed.

    :param where: how messages name it
    :param form: how results become what it stores
    :param versions: where it keeps the versions of tasks
    :param types: of which types what is read may be
    """

    def __init__(
        self, where: str, form: ResultForm, versions: VersionStore, types: TypesGiven = ()
    ) -> None:
        self._where = where
        self._form = form
        self._versions = versions
        self._told: dict[tuple[str, str], TaskVersion | None] = {}
        """By stage and task, of which versions results may still be on their way."""
        self._types = named_types(types)
        self._pipeline: str | None = None
        self._mutex = threading.Lock()
        self._waiting: dict[WindowKey, Any] = {}  # windows, each once
        self._closed = False

    def begin(self, pipeline: str) -> None:
        """Say whose results come now. Before the first write.

        :param pipeline: the pipeline's name, a part of each key
        :raises ConfigError: if it is not a text, or another pipeline writes to this sink
        """
        with self._mutex:
            self._check_open()
            given: object = pipeline
            if type(given) is not str or not given or not is_storable(given):
                raise ConfigError(f"{self._where}: {given!r} is no name of a pipeline")
            if self._pipeline not in (None, pipeline):
                raise ConfigError(
                    f"{self._where} belongs to pipeline {self._pipeline!r}: make another one for "
                    f"{pipeline!r}"
                )
            if problem := self._form.begin(pipeline):
                raise ConfigError(f"{self._where}: {problem}")
            self._pipeline = pipeline

    @property
    def is_of_one_stage(self) -> bool:
        """Whether it takes the results of one stage alone, as a wide table does."""
        return self._form.is_of_one_stage

    def declare(self, output: StageOutput) -> None:
        """Say what a stage gives whose results come now, so that a wide table has columns of the
        types that its tasks say they return. After :meth:`begin`.

        :param output: what it gives
        :raises ConfigError: if the sink holds no such results
        """
        with self._mutex:
            self._name()
            if problem := self._form.declare(output):
                raise ConfigError(f"{self._where}: {problem}")
            self._prepare()

    def write(self, result: Result | str, dataset: AnyDataSet | None = None, /) -> None:
        """Take the results of a window; :meth:`flush` makes them last.

        A window without any task, of which a row could tell, takes what is there of it away, and
        leaves no trace. When 1 024 windows wait, they are stored without a flush; if that fails,
        they wait on, and the flush raises.

        :param result: the results
        :param dataset: ``write(stage, dataset)`` is the old form, with a DeprecationWarning
        :raises ConfigError: if it is given something else
        :raises SinkError: if they are of another pipeline, or a name or a task's result cannot be
            stored; then nothing of the window is
        """
        with self._mutex:
            pipeline = self._name()
            result = _result(pipeline, result, dataset)
            if result.pipeline != pipeline:
                raise SinkError(
                    f"{self._where} belongs to pipeline {pipeline!r}: make another one for "
                    f"{result.pipeline!r}"
                )
            self._put_waiting(self._form.record(result))
            if len(self._waiting) % _MOST_WAITING == 0:
                with contextlib.suppress(SinkError):  # a raise would say that it is this result
                    self._store()

    def _put_waiting(self, window: Recorded) -> None:
        """Let a window wait, in the place of what waits of the same."""
        self._waiting.pop(window.key, None)  # so that it is the last one
        self._waiting[window.key] = window

    def flush(self) -> None:
        """Make all that was written last.

        :raises SinkError: if it cannot be stored; it is kept, and tried again at the next flush
        """
        with self._mutex:
            self._check_open()
            self._store()

    def last(self, stage: str) -> int | None:
        """The end of the last window that the sink holds of a stage of this pipeline, or None."""
        with self._mutex:
            pipeline = self._name()
            self._look()
            return self._last(pipeline, stage)

    def unit(self, stage: str) -> TimeUnit | None:
        """The unit in which the sink holds the times of a stage of this pipeline, as of its last
        window; None: it holds none, or nobody told it."""
        with self._mutex:
            pipeline = self._name()
            self._look()
            return self._unit(pipeline, stage)

    def other_versions(
        self, stage: str, versions: Mapping[str, TaskVersion | None]
    ) -> Mapping[str, TaskVersion | None]:
        """Which tasks are of another version than their results that the sink holds.

        :param stage: the stage
        :param versions: the versions of tasks of it; None: it has none
        :return: the versions of the results, of those tasks alone; None: they have none
        :raises RunTaskError: if it cannot be known
        """
        with self._mutex:
            pipeline = self._name()
            held = self._versions.held()
            found: dict[str, TaskVersion | None] = {}
            others: dict[str, TaskVersion | None] = {}
            for task, version in versions.items():
                of = held.get((pipeline, stage, task))
                if self._told.get((stage, task), version) != version:
                    found[task] = of
                elif of != version:
                    others[task] = of
            if others:
                self._look()
                for row in self._rows(pipeline, stage):
                    if row.task in others and self._form.has_result(row):
                        found[row.task] = others.pop(row.task)
                        if not others:
                            break
            return found

    def keep_versions(self, stage: str, versions: Mapping[str, TaskVersion | None]) -> None:
        """Make last of which versions the tasks of a stage are, before their first results.

        :param stage: the stage
        :param versions: as of :meth:`other_versions`, which has found none
        :raises RunTaskError: if that cannot be done
        """
        with self._mutex:
            pipeline = self._name()
            held = self._versions.held()
            if any(held.get((pipeline, stage, task)) != of for task, of in versions.items()):
                self._versions.keep(pipeline, stage, versions)
            self._told.update({(stage, task): of for task, of in versions.items()})

    def rows(self, stage: str | None = None) -> Iterator[Row]:
        """The rows of this pipeline, each key once, windows that were replaced left out.

        :param stage: of which stage; None: of all
        :raises SinkError: when it comes to a value that does not become what was stored, as of a
            type in ``types=`` that has other fields now
        """
        with self._mutex:
            pipeline = self._name()
            self._look()
            return self._restored(self._rows(pipeline, stage))

    def windows(self, stage: str, after: int | None, before: int | None) -> Iterator[Window]:
        """The windows that the sink holds of a stage, in any order: each once for each row that
        :meth:`rows` has of it, whatever that holds.

        :param stage: the stage
        :param after: only those that end after this, in the unit of the stage; None: all
        :param before: only those that begin before this; None: all
        """
        with self._mutex:
            pipeline = self._name()
            self._look()
            return self._windows(pipeline, stage, after, before)

    def _restored(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            try:
                value = self._form.value(row.value, self._types)
            except UndecodableError as error:
                raise SinkError(
                    f"{self._where}: stage {row.stage!r}, window {row.start} to {row.end}, task "
                    f"{row.task!r}: {error}"
                ) from error.__cause__
            yield row if value is row.value else row._replace(value=value)

    def close(self) -> None:
        """Flush, and let go of what is open. Any number of times."""
        with self._mutex:
            if self._closed:
                return
            try:
                self._store()
            finally:
                self._closed = True
                self._release()

    def __repr__(self) -> str:
        return self._where

    def _check_open(self) -> None:
        if self._closed:
            raise SinkError(f"{self._where} is closed")

    def _name(self) -> str:
        self._check_open()
        if self._pipeline is None:
            raise SinkError(f"{self._where}: call begin() with the pipeline's name first")
        return self._pipeline

    def _store(self) -> None:
        """Make what waits last; if that fails, it waits on."""
        if self._waiting:
            self._attend()
            windows = list(self._waiting.values())
            self._keep([w for w in windows if not (w.is_empty and self._changes_nothing(w))])
            self._waiting = {}

    def _changes_nothing(self, window: Recorded) -> bool:
        """Whether there can be no earlier results that a window without any would replace."""
        if window.elsewhere is None:
            return True
        key = window.key
        last = self._last(key.pipeline, key.stage)
        return last is None or key.end > last

    def _let_go(self, windows: Iterable[Recorded]) -> None:
        """Some of those that are being stored last, whatever becomes of the others."""
        for window in windows:
            self._waiting.pop(window.key, None)

    def _look(self) -> None:
        """Store what waits, and see what is there."""
        self._store()
        self._attend()

    def _attend(self) -> None:  # noqa: B027 a database attends to that by itself
        """Notice what others have done to the place where windows are kept.

        :raises SinkError: if it cannot be gone on with
        """

    def _prepare(self) -> None:  # noqa: B027 files are made when there is something in them
        """Make what can be made before the first result.

        :raises ConfigError: if it cannot be
        """

    @abstractmethod
    def _keep(self, windows: list[Any]) -> None:
        """Make windows last, all of them or none, but for those that it lets go of.

        :raises SinkError: if that cannot be done
        """

    @abstractmethod
    def _last(self, pipeline: str, stage: str) -> int | None:
        """The end of the last window there is."""

    @abstractmethod
    def _unit(self, pipeline: str, stage: str) -> TimeUnit | None:
        """The unit of the last window there is."""

    @abstractmethod
    def _rows(self, pipeline: str, stage: str | None) -> Iterator[Row]:
        """The rows there are, of all stages or of one; their values are as the form has them."""

    def _windows(
        self, pipeline: str, stage: str, after: int | None, before: int | None
    ) -> Iterator[Window]:
        """The windows there are, as :meth:`windows` gives them."""
        return (
            Window(row.start, row.end)
            for row in self._rows(pipeline, stage)
            if (after is None or row.end > after) and (before is None or row.start < before)
        )

    @abstractmethod
    def _release(self) -> None:
        """Let go of what is open."""


def _result(pipeline: str, result: Result | str, dataset: AnyDataSet | None) -> Result:
    """What a sink is given, as a Result."""
    if isinstance(result, Result) and dataset is None:
        return result
    if isinstance(result, str) and isinstance(dataset, DataSet | KeyedDataSet):
        warnings.warn(
            "write(stage, dataset) is now write(Result.of(pipeline, stage, dataset))",
            DeprecationWarning,
            stacklevel=3,
        )
        return Result.of(pipeline, result, dataset)
    raise ConfigError(f"a sink is given a Result, not {result!r:.100}")
