"""A stage of a pipeline: what a runner will run, and where its results go."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar, overload

from run_task.data import Closed, Shared, TimeSeries, Writable
from run_task.data._several import inputs_of
from run_task.data.series._retention import as_kept
from run_task.errors import ConfigError
from run_task.executors._states import States
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._result_rows import (
    KeyedRowIngest,
    RowIngest,
    checked_stamps,
    result_columns,
    result_series,
)
from run_task.pipeline._route import Route
from run_task.pipeline._sink_policy import SinkOptions
from run_task.runner._checks import check_calls, warnings_of
from run_task.runner._config import RunnerConfig
from run_task.runner._context import Context
from run_task.runner._keys import Keys
from run_task.runner._task_set import TaskSet
from run_task.sinks._protocol import Sink
from run_task.sinks._spool import Spool
from run_task.sources._arguments import check_flag
from run_task.sources._faults import OnFault
from run_task.sync._channel import Receiver, Sender, channel
from run_task.sync._overflow import Overflow
from run_task.tasks._dataset import DataSet
from run_task.tasks._declared import ColumnTypes
from run_task.tasks._keyed import KeyedDataSet
from run_task.tasks._task import Runnable, name_of
from run_task.time._calendar import Interval
from run_task.time._length import EveryLike, IntervalLike, in_short
from run_task.time._retry import Retry

_log = Log(__name__)

I = TypeVar("I")
O = TypeVar("O")
D = TypeVar("D")
R = TypeVar("R")


def _nothing() -> None:
    """No limit was set."""


_calls_checked_later: ContextVar[bool] = ContextVar("calls_checked_later", default=False)


@contextmanager
def calls_checked_later() -> Generator[None]:
    """Let stages be declared with tasks that cannot be called: ``run-task check`` declares all that
    it can, and tells of each task by itself what is wrong with it."""
    token = _calls_checked_later.set(True)
    try:
        yield
    finally:
        _calls_checked_later.reset(token)


class Owner(Protocol):
    """What a stage asks its pipeline when something about it is to change."""

    def connect(self, stage: Any, route: Route, on_bad_result: Any, dead_letters: Any) -> None:
        """Let its results take one more route, from its next window on.

        :raises ConfigError: if they would come back to it, or the options cannot work
        """
        ...

    def write_to(
        self, stage: Any, sink: Sink, options: SinkOptions, *, sharded: bool = False
    ) -> None:
        """Let its results go to one more sink, from its next window on.

        :raises ConfigError: if the options cannot work, or shards cannot write to it and are to
        """
        ...

    def pause(self, stage: Any, *, paused: bool) -> None:
        """Let it run no windows, or run them again, from the next one on."""
        ...

    def pause_task(self, stage: Any, name: str, *, paused: bool) -> None:
        """Let its windows do without a task, or run it again, from the next one on.

        :raises ConfigError: if they cannot do without it, or there is none
        """
        ...

    def add_task(self, stage: Any, task: Runnable[Any, Any]) -> None:
        """Let it run one more task, from the next window on.

        :raises ConfigError: if it cannot
        """
        ...

    def remove_task(self, stage: Any, name: str) -> None:
        """Let it run a task no more, from the next window on.

        :raises ConfigError: if it cannot do without
        """
        ...


def check_sink(where: str, sink: Any) -> None:
    """See whether results can be written to it.

    :param where: who wants to, for messages
    :raises ConfigError: if it is no sink
    """
    if isinstance(sink, type):
        raise ConfigError(
            f"{where}: sink={sink.__name__}: this is a class: make a sink of it, "
            f"{sink.__name__}(...)"
        )
    for method in ("write", "flush", "close"):
        if not callable(getattr(sink, method, None)):
            cure = ": CallbackSink makes a sink of a function" if callable(sink) else ""
            raise ConfigError(f"{where}: sink={brief(sink)} has no {method}(){cure}")
    if not _takes_one(sink.write):
        raise ConfigError(
            f"{where}: sink={brief(sink)}: its write() is called with one Result: make it "
            f"write(self, result), with result.stage and result.dataset"
        )


class BaseStage(Generic[I, O, R]):
    """What a :class:`Stage` and a :class:`KeyedStage` have in common.

    :ivar name: what it is called in results, sinks and messages
    :ivar tasks: what it runs
    :ivar data: what they read; several as one, if they were given as a tuple
    :ivar inputs: the same, each by itself
    :ivar interval: how often
    :ivar config: everything else
    :ivar keys: by which keys its tasks are run; None: by none
    :ivar sinks: where its results go
    :ivar sharded_sinks: those of them to which shards write by themselves, if there are shards
    :ivar states: the states of its tasks, as of its last window
    :ivar is_paused: whether it runs no windows; :meth:`pause` and :meth:`resume` say so
    :ivar paused_tasks: the names of the tasks that its windows do without; the same say so
    """

    def __init__(
        self,
        name: str,
        tasks: Iterable[Runnable[I, O]],
        data: Any,
        interval: EveryLike,
        config: RunnerConfig,
        owner: Owner,
        keys: Keys | None = None,
    ) -> None:
        ends: tuple[Sender[Any], Receiver[Any]] = channel(1)
        try:
            # What a context would refuse once the pipeline runs is refused now.
            context = Context[I, O](
                tasks=tasks, data=data, interval=interval, sender=ends[0], config=config
            )
            if keys is not None:
                keys.check(context.tasks, context.data, config.executor_instance)
            if not _calls_checked_later.get():
                check_calls(context.tasks)
        except ConfigError as error:
            raise ConfigError(f"stage {name!r}: {error}") from None
        if config.overflow not in (None, Overflow.BLOCK):
            raise ConfigError(
                f"stage {name!r}: overflow={config.overflow}: a pipeline waits for a sink that is "
                f"slow, and drops nothing: leave it out"
            )
        if config.channel_capacity is not None:
            raise ConfigError(
                f"stage {name!r}: channel_capacity={config.channel_capacity}: a stage has no "
                f"channel that anybody receives from: leave it out"
            )
        for warning in warnings_of(context.data, context.interval, config):
            _log.warning("stage %r: %s", name, warning)
        self.name = name
        self.tasks: Sequence[Runnable[I, O]] = tuple(context.tasks)
        self.paused_tasks: frozenset[str] = frozenset()
        self.data: Shared[I] = context.data
        self.inputs: Sequence[Any] = inputs_of(context.data)
        self.interval: Interval = context.interval
        self.config = config
        self.keys = keys
        self.states: States = States()
        self.routes: Sequence[Route] = ()
        self.sinks: Sequence[Sink] = ()
        self.sharded_sinks: Sequence[Sink] = ()
        self.is_paused = False
        self._owner = owner
        self._series: TimeSeries | None = None
        self._lift_key_limit: Callable[[], None] = _nothing

    def limit_keys(self) -> None:
        """Let its data refuse rows whose key would be one too many, for as long as the stage is
        part of its pipeline.

        :raises ConfigError: if there are more keys already
        """
        if self.keys is not None:
            try:
                self._lift_key_limit = self.keys.limit(self.data)
            except ConfigError as error:
                raise ConfigError(f"stage {self.name!r}: {error}") from None

    def lift_key_limit(self) -> None:
        """Let its data take any number of keys again, as far as others let it."""
        self._lift_key_limit()

    @overload
    def into(
        self, shared: TimeSeries, *, on_bad_result: OnFault = ..., dead_letters: Any = None
    ) -> Self: ...
    @overload
    def into(
        self,
        shared: Writable[D],
        ingest: Callable[[D, R], object],
        *,
        on_bad_result: OnFault = ...,
        dead_letters: Any = None,
    ) -> Self: ...
    def into(
        self,
        shared: Writable[Any],
        ingest: Callable[[Any, R], object] | None = None,
        *,
        on_bad_result: OnFault = OnFault.SKIP,
        dead_letters: Any = None,
    ) -> Self:
        """Let each DataSet enter other data, which other stages read: while the pipeline runs, from
        the next window on.

        Without an ``ingest``, it becomes a row of a :class:`~run_task.TimeSeries`: its timestamp,
        and for each column the result of the task of that name, or, for one that is called
        ``task_field``, the field of it. That timestamp is the end of its
        window, so the series is one with ``closed=Closed.RIGHT``. A window in which one of these
        tasks failed gives no row, nor does one in which all of them returned None; a result that
        its column cannot hold costs its own row, and is logged.

        An ``ingest`` of your own has to expect that a failed task has no result in the DataSet.
        One that raises costs the DataSet, which is counted as ``rejected`` in
        :class:`PipelineStats` and logged; the stage goes on, live and in a replay.
        A row that it adds to a series with ``closed=Closed.LEFT`` is stamped with a time before the
        end of the window, or refused.

        The stage may read the same data itself: a window then sees it as it was after the window
        before.

        :param shared: the data
        :param ingest: how a DataSet enters it: called with the value of an ``RwLock``, which
            nobody else has meanwhile, or with an ``Atom`` or ``TimeSeries`` itself, and the DataSet
        :param on_bad_result: what to do when it raises: with ``OnFault.RAISE``, that ends a replay,
            and live this stage, and is raised when the pipeline ends
        :param dead_letters: where DataSets go whose ``ingest`` raised, with the reason
            ``"rejected"``: as of :meth:`sink`
        :return: the stage
        :raises ConfigError: if stages would wait for each other: the message draws how; or if a
            column is called like no task, or the series is not closed on the right; or if stages
            that run would have to wait longer for these results than they do
        :raises RunTaskError: if the pipeline ends, or the stage was removed
        """
        in_order = ingest is None
        if ingest is None:
            ingest = self._as_rows(shared)
        elif isinstance(shared, TimeSeries) and shared.closed is Closed.LEFT and callable(ingest):
            ingest = checked_stamps(self.name, self.interval.unit, ingest)
        route = Route.checked(f"stage {self.name!r}", shared, ingest, in_order=in_order)
        self._owner.connect(self, route, on_bad_result, dead_letters)
        return self

    def _as_rows(self, shared: object) -> Callable[[TimeSeries, Any], None]:
        """An ingest that makes a row of each DataSet."""
        if not isinstance(shared, TimeSeries):
            raise ConfigError(
                f"stage {self.name!r}: say by ingest= how a DataSet enters {brief(shared)}"
            )
        columns = tuple(shared.columns)
        of_tasks = result_columns(self.tasks, self._columns_read)
        names = list(of_tasks)
        if self.keys is not None:
            columns = self._columns_by_key(shared, self.keys.by)
        for column in columns:
            if column not in of_tasks:
                raise ConfigError(
                    f"stage {self.name!r}: no task is called like the column {column!r}, but "
                    f"{', '.join(map(repr, names))}: name columns after tasks, or say by ingest= "
                    f"how a DataSet enters"
                )

        if shared.closed is not Closed.RIGHT:
            raise ConfigError(
                f"stage {self.name!r}: its results are stamped with the end of their window, and "
                f"{brief(shared)} is closed on the left, so that no window would hold those of its "
                f"end: make it with closed=Closed.RIGHT, take series() of the stage, or say by "
                f"ingest= how a DataSet enters"
            )
        if shared.unit is not self.interval.unit:
            raise ConfigError(
                f"stage {self.name!r}: its windows are in {self.interval.unit.name.lower()}, and "
                f"the timestamps of {brief(shared)} in {shared.unit.name.lower()}: give it "
                f"unit=TimeUnit.{self.interval.unit.name}, or say by ingest= how a DataSet enters"
            )
        taken = [of_tasks[name] for name in columns]
        exact = shared is self._series  # whose floats may be ints that nobody wanted as floats
        if self.keys is not None:
            return KeyedRowIngest(self.keys.by, taken, exact=exact)
        return RowIngest(taken, exact=exact)

    @property
    def _columns_read(self) -> ColumnTypes | None:
        """What each column of the series holds that the tasks read; None: they read no series."""
        return self.data.columns if isinstance(self.data, TimeSeries) else None

    def _columns_by_key(self, shared: TimeSeries, by: str) -> tuple[str, ...]:
        """The columns of a series that results of tasks enter, besides that of the key."""
        if by not in shared.columns:
            raise ConfigError(
                f"stage {self.name!r}: its results are by key, and {brief(shared)} has no column "
                f"{by!r} for it: make it with one, or say by ingest= how they enter"
            )
        return tuple(column for column in shared.columns if column != by)

    def series(self, retention: int | IntervalLike | None = None) -> TimeSeries:
        """A series of the results, for other stages to read.

        It has a column for each task, of the kind that the task says it returns (``-> float``,
        ``int``, ``bool`` or ``str``), or, of a NamedTuple or dataclass, one for each field, called
        as in a wide table, ``task_field``. What may be missing (``float | None``, ``int | None``)
        is a column of floats, where None becomes NaN: no column of ints tells that one is missing.
        An int that no float tells exactly is refused there, and logged. By key, there is a column
        of the key. The timestamps are in the unit of the interval, closed on the right. Each
        DataSet enters it as with :meth:`into`. Asked for again, it is the same series.

        :param retention: how many of the last rows stay, or for how long before the newest: a
            TaskInterval, a timedelta, or a text such as ``"1h"``; None: all
        :return: the series
        :raises ConfigError: if the results of a task cannot be a column: the message names it; or
            if it was asked for before with another retention
        """
        if self._series is None:
            key = None if self.keys is None else self._key_column(self.keys.by)
            unit = self.interval.unit
            series = result_series(self.name, self.tasks, unit, retention, key, self._columns_read)
            self._series = series
            try:
                self.into(series)
            except BaseException:
                self._series = None
                raise
        elif self._series.retention != as_kept(retention, self.interval.unit):
            raise ConfigError(
                f"stage {self.name!r}: series(retention={retention!r}): its series has been made "
                f"with retention={self._series.retention!r}: ask for it with the same one"
            )
        return self._series

    def _key_column(self, by: str) -> tuple[str, Any]:
        """The column of the key, and its kind, as the data of the stage has it."""
        assert self.keys is not None
        return by, self.keys.keyed(self.data)[0].columns[by]

    def sink(
        self,
        sink: Sink,
        *,
        retry: Retry | None = None,
        spool: str | os.PathLike[str] | Spool | None = None,
        dead_letters: Any = None,
        sharded: bool = False,
    ) -> Self:
        """Let each DataSet be written to a sink: while the pipeline runs, from the next window on.
        Stages may share one, and what one of them says of it holds for all.

        While a sink is away, results wait for it, and are written in order once it is back, so that
        windows go on. What it has not flushed is kept until then, and written again. Up to 1,024
        results wait; when there are more, ``retry`` says by its ``then`` whether that ends the
        pipeline, or whether further ones are left out, counted as ``dropped`` in
        :attr:`PipelineStats.sinks`. A sink that only takes long is waited for.

        :param sink: where to
        :param retry: how often it is tried again when it raises: in ``write`` anything but a
            ``SinkError``, which costs that result alone, and in ``flush`` anything, except a
            ConfigError, which ends the pipeline at once. After the last attempt, ``Then.RAISE``
            ends the pipeline; with ``Then.DROP`` the result that it did not take is left out, or
            all that it could not flush. None: an OSError, of which a ConnectionError and a
            TimeoutError are, and a SinkError in ``flush``, are tried again for some five seconds,
            and then, as everything else, end the pipeline
        :param spool: the folder in which results wait on disk while it is away, in order, or a
            :class:`~run_task.sinks.Spool`, which says how many bytes: they survive the program, and
            the next run delivers them first. None: 1,024 wait, in memory. Replays deliver what
            waits there first, and do not add to it
        :param dead_letters: what is given each result that the sink does not get, refused, dropped
            or lost, with the reason, as a :class:`DeadLetter`: a function, called with ``(result,
            reason, detail)``; shared data with an ingest, ``(data, ingest)``; or another sink,
            which is given a result of the name of this one and the microsecond of the letter
        :param sharded: in a run over shards, each of these writes what it has of a window to the
            sink by itself, before it answers, so that this process has only that part of it to
            write that a shard could not. While the sink is away, this process writes all, as ever.
            The sink holds what it would without: so it has to be a
            :class:`~run_task.sinks.ShardedSink`, as an ``SqlSink`` is, and the stage one by key.
            Said before the pipeline runs. Where there are no shards, it changes nothing
        :return: the stage
        :raises ConfigError: if it is no sink, or a table of the results of one stage that has
            another one's, or something else was said of it before, or it is ``sharded`` and shards
            cannot write to it; while the pipeline runs, also if it holds results of another version
            of a task
        :raises RunTaskError: if the pipeline ends, or the stage was removed
        """
        check_sink(f"stage {self.name!r}", sink)
        check_flag(f"stage {self.name!r}: sink={brief(sink)}", "sharded", sharded)
        self._owner.write_to(
            self,
            sink,
            {"retry": retry, "spool": spool, "dead_letters": dead_letters},
            sharded=sharded,
        )
        return self

    def add(self, task: Runnable[I, O]) -> None:
        """Run one more task: while the pipeline runs live, from the next window on.

        It is made ready in this thread, and so this may take as long as its processes take to be
        started. Its results go to sinks, and into data that the stage was told of by an ``ingest``;
        a series has the columns that it was made with. Replays that have begun do not change.

        :param task: the task; it comes after the others
        :raises ConfigError: if it cannot be run beside them, or a sink holds results of another
            version of it; the message says why
        :raises RunTaskError: if the stage ends
        """
        self._owner.add_task(self, task)

    def remove(self, name: str | Runnable[I, Any]) -> None:
        """Run a task no more: while the pipeline runs live, from the next window on. If it hangs,
        nothing waits for it any more. Its state is let go of.

        :param name: the task, or its name
        :raises ConfigError: if there is no such task, it is the only one, or a series that the
            results enter has a column of it
        :raises RunTaskError: if the stage ends
        """
        self._owner.remove_task(self, name_of(name))

    def pause(self, *, task: str | Runnable[I, Any] | None = None) -> None:
        """Run no window, or not a task of it, from the next one on, while the pipeline runs live.

        Windows that fall due until :meth:`resume` give no results, and count as ``missed``, and as
        ``paused``, in :attr:`PipelineStats.stages`; rows that they would have held are not late.
        Stages that are fed by this one go on, and do not wait for it. A window that has begun is
        finished. From any thread, any number of times; before the pipeline runs, it begins paused.
        Replays do not pause.

        While a task is paused, windows give the results of the others, and count as any. Its state
        stays as it is: :meth:`resume` goes on with that, as if there had been no windows between.

        :param task: a task, or its name; None: all windows
        :raises ConfigError: if there is no such task, no other one is run, or a series that the
            results enter has a column of it
        :raises RunTaskError: if the stage was removed; of a task: also if it ends
        """
        if task is None:
            self._owner.pause(self, paused=True)
        else:
            self._owner.pause_task(self, name_of(task), paused=True)

    def resume(self, *, task: str | Runnable[I, Any] | None = None) -> None:
        """Run windows, or a task of them, again, from the next one that falls due.

        :param task: a task, or its name; None: windows; tasks that are paused stay so
        :raises ConfigError: if there is no such task
        :raises RunTaskError: if the stage was removed; of a task: also if it ends
        """
        if task is None:
            self._owner.pause(self, paused=False)
        else:
            self._owner.pause_task(self, name_of(task), paused=False)

    @property
    def task_set(self) -> TaskSet:
        """What it runs, and what of it is paused."""
        return TaskSet(self.tasks, self.paused_tasks)

    def series_of(self, task: str) -> Any:
        """A series that the results enter, and that has a column of a task; None: there is none."""
        for route in self.routes:
            if isinstance(route.ingest, RowIngest) and task in route.ingest.tasks:
                return route.into
        return None

    def cannot_pause(self, task: str) -> str | None:
        """Why its windows cannot do without a task; None: they can."""
        if (told := self.task_set.cannot_pause(task)) is not None:
            return told
        if (series := self.series_of(task)) is not None:
            return (
                f"{brief(series)}, which its results enter, has a column of this task, and no row "
                f"without it: pause() the whole stage"
            )
        return None

    def __repr__(self) -> str:
        return f"<Stage {self.name!r}: {len(self.tasks)} tasks every {in_short(self.interval)}>"


class Stage(BaseStage[I, O, DataSet[O]]):
    """Tasks over shared data, as part of a pipeline. :meth:`Pipeline.stage` makes one."""


class KeyedStage(BaseStage[I, O, KeyedDataSet[Any, O]]):
    """Tasks that are run once for each key, as part of a pipeline: :meth:`Pipeline.stage` with
    ``by=`` makes one. What it gives for a window is a :class:`~run_task.KeyedDataSet`."""


AnyStage: TypeAlias = BaseStage[Any, Any, Any]


def _takes_one(method: Callable[..., object]) -> bool:
    """Whether a method can be called with one argument, as far as that can be told."""
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # some callables written in C have none
        return True
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True
