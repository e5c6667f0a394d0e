"""What a runner needs to run, and the builder that puts it together with the right types."""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Never, TypeAlias, TypeVar, cast, overload

from run_task.data import Atom, RwLock, Shared, TimeSeries, TimeSeriesView
from run_task.data._several import is_given, shared
from run_task.errors import ConfigError, RunTaskError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.runner._checks import (
    check_calls,
    check_declared,
    check_empty,
    check_inputs,
    check_tasks,
    check_windows,
    listed,
    warnings_of,
)
from run_task.runner._config import RunnerConfig
from run_task.runner._keys import DEFAULT_IDLE, DEFAULT_MOST, Keys
from run_task.sync._channel import Receiver, Sender, sole_channel
from run_task.sync._lifecycle import Lifecycle, Phase
from run_task.sync._overflow import Overflow
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import KeyedDataSet
from run_task.tasks._task import Runnable
from run_task.time._calendar import Interval
from run_task.time._length import EveryLike, IntervalLike, interval_in, unit_of

I = TypeVar("I")
O = TypeVar("O")
T = TypeVar("T")
D = TypeVar("D")
S_co = TypeVar("S_co", bound="Shared[Any] | tuple[Shared[Any], ...]", covariant=True)

# Of several inputs, what tasks are given of each.
D1 = TypeVar("D1")
D2 = TypeVar("D2")
D3 = TypeVar("D3")
D4 = TypeVar("D4")
D5 = TypeVar("D5")

SixOrMore: TypeAlias = tuple[
    Shared[Any],
    Shared[Any],
    Shared[Any],
    Shared[Any],
    Shared[Any],
    Shared[Any],
    *tuple[Shared[Any], ...],
]
"""So many inputs that type checkers are not told what tasks are given of each."""

_log = Log(__name__)

_DEFAULT_CONFIG: Final = RunnerConfig()

DEFAULT_INTERVAL: Final = "5s"

_SHARED: Final[tuple[type[Any], ...]] = (RwLock, Atom, TimeSeries)

DEFAULT_CAPACITY: Final = 1024
"""How many DataSets may wait to be received."""


@dataclass(frozen=True, kw_only=True, eq=False, init=False)
class Context(Generic[I, O]):
    """Tasks, the data they read, how often, and where their results go.

    :param tasks: what to run at each tick; at least one, no two of one name
    :param data: what the tasks read; several as a tuple, of which they get a tuple of views, of one
        moment
    :param interval: how often: a TaskInterval, whose unit is that of every timestamp; or a
        timedelta or a text, such as ``"5s"``, or a CalendarInterval, which take the unit of the
        data (of several, of the first that has one), or seconds where it has none
    :param sender: where DataSets are sent; see :func:`~run_task.channel`
    :param config: everything else
    :raises ConfigError: if something about it cannot work
    """

    tasks: Iterable[Runnable[I, O]]
    data: Shared[I]
    interval: Interval
    sender: Sender[DataSet[O]]
    config: RunnerConfig
    _lifecycle: Lifecycle = field(init=False, repr=False)

    # By hand, since data and intervals are taken in other ways than they are kept.
    @overload
    def __init__(
        self,
        *,
        tasks: Iterable[Runnable[I, O]],
        data: Shared[I],
        interval: EveryLike,
        sender: Sender[DataSet[O]],
        config: RunnerConfig = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Context[tuple[D1, D2], T],
        *,
        tasks: Iterable[Runnable[tuple[D1, D2], T]],
        data: tuple[Shared[D1], Shared[D2]],
        interval: EveryLike,
        sender: Sender[DataSet[T]],
        config: RunnerConfig = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Context[tuple[D1, D2, D3], T],
        *,
        tasks: Iterable[Runnable[tuple[D1, D2, D3], T]],
        data: tuple[Shared[D1], Shared[D2], Shared[D3]],
        interval: EveryLike,
        sender: Sender[DataSet[T]],
        config: RunnerConfig = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Context[tuple[D1, D2, D3, D4], T],
        *,
        tasks: Iterable[Runnable[tuple[D1, D2, D3, D4], T]],
        data: tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4]],
        interval: EveryLike,
        sender: Sender[DataSet[T]],
        config: RunnerConfig = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Context[tuple[D1, D2, D3, D4, D5], T],
        *,
        tasks: Iterable[Runnable[tuple[D1, D2, D3, D4, D5], T]],
        data: tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4], Shared[D5]],
        interval: EveryLike,
        sender: Sender[DataSet[T]],
        config: RunnerConfig = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Context[tuple[Any, ...], T],
        *,
        tasks: Iterable[Runnable[Any, T]],
        data: SixOrMore,
        interval: EveryLike,
        sender: Sender[DataSet[T]],
        config: RunnerConfig = ...,
    ) -> None: ...
    def __init__(
        self,
        *,
        tasks: Iterable[Runnable[Any, Any]],
        data: Any,
        interval: EveryLike,
        sender: Sender[Any],
        config: RunnerConfig = _DEFAULT_CONFIG,
    ) -> None:
        listed_tasks = listed(tasks)
        check_tasks(listed_tasks)
        data = shared(data)
        every = interval_in(interval, unit_of(data), "interval={}")
        if not callable(getattr(sender, "send", None)):
            raise ConfigError(f"sender={sender!r} has no send(): make one with channel()")
        if not isinstance(config, RunnerConfig):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise ConfigError(f"config={config!r}: it is a RunnerConfig")
        check_windows(every, config)
        check_empty(data, config)
        config.executor_instance.check(listed_tasks)
        check_declared(listed_tasks, data, every, config)
        check_inputs(listed_tasks, data, None)
        kept = {"tasks": listed_tasks, "data": data, "interval": every, "sender": sender}
        for name, value in {**kept, "config": config, "_lifecycle": Lifecycle()}.items():
            object.__setattr__(self, name, value)  # it is frozen

    def claim(self) -> None:
        """Take it for a runner: called by one that starts.

        :raises RunTaskError: if another one has it, whose windows would go through the same
            channel, or the channel is closed
        """
        name = self.config.name
        if self.sender.closed:
            raise RunTaskError(
                f"runner {name!r}: the channel of its context is closed, as a runner does "
                f"when it ends: build a new context for it"
            )
        if not self._lifecycle.advance(Phase.RUNNING):
            raise RunTaskError(
                f"runner {name!r}: another runner has been started with its context, and the "
                f"windows of both would go through one channel: build a context for each"
            )
        self.sender.serve(name)


@dataclass(frozen=True, kw_only=True, eq=False, init=False)
class KeyedContext(Context[I, O]):
    """Tasks that are run once for each key: what :meth:`ContextBuilder.with_key` leads to.

    :param tasks: what to run at each tick
    :param data: what the tasks read
    :param interval: how often
    :param sender: where KeyedDataSets are sent
    :param config: everything else
    :param keys: by which keys
    :raises ConfigError: if something about it cannot work
    """

    keys: Keys

    def __init__(
        self,
        *,
        tasks: Iterable[Runnable[I, O]],
        data: Shared[I],
        interval: EveryLike,
        sender: Sender[Any],
        config: RunnerConfig = _DEFAULT_CONFIG,
        keys: Keys,
    ) -> None:
        super().__init__(tasks=tasks, data=data, interval=interval, sender=sender, config=config)
        keys.check(self.tasks, self.data, config.executor_instance)
        # With the last who may run it, it needs no limit any more.
        weakref.finalize(self, keys.limit(self.data)).atexit = False
        object.__setattr__(self, "keys", keys)  # it is frozen


class ContextBuilder(Generic[I, O, S_co]):
    """Puts a :class:`Context` together, and the channel and data with it.

    Each step gives a new builder and leaves the one before as it was. Types flow through: every
    task widens the type of the results, and a task for other data is an error to a type checker.

    ::

        context, receiver, data = (
            ContextBuilder(Prices)
            .with_task(mean)
            .with_interval("1s")
            .build()
        )

    :param data: what the tasks read: an ``RwLock``, an ``Atom``, a ``TimeSeries`` or other shared
        data; several of these as a tuple; or a type or function that makes it, or that makes the
        value of an ``RwLock``, anew for each context
    :raises ConfigError: if it is neither
    """

    @overload
    def __init__(self: ContextBuilder[D, Never, RwLock[D]], data: RwLock[D]) -> None: ...
    @overload
    def __init__(self: ContextBuilder[D, Never, Atom[D]], data: Atom[D]) -> None: ...
    @overload
    def __init__(
        self: ContextBuilder[TimeSeriesView, Never, TimeSeries], data: TimeSeries
    ) -> None: ...
    @overload
    def __init__(self: ContextBuilder[D, Never, Shared[D]], data: Shared[D]) -> None: ...
    @overload
    def __init__(
        self: ContextBuilder[tuple[D1, D2], Never, tuple[Shared[D1], Shared[D2]]],
        data: tuple[Shared[D1], Shared[D2]],
    ) -> None: ...
    @overload
    def __init__(
        self: ContextBuilder[tuple[D1, D2, D3], Never, tuple[Shared[D1], Shared[D2], Shared[D3]]],
        data: tuple[Shared[D1], Shared[D2], Shared[D3]],
    ) -> None: ...
    @overload
    def __init__(
        self: ContextBuilder[
            tuple[D1, D2, D3, D4], Never, tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4]]
        ],
        data: tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4]],
    ) -> None: ...
    @overload
    def __init__(
        self: ContextBuilder[
            tuple[D1, D2, D3, D4, D5],
            Never,
            tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4], Shared[D5]],
        ],
        data: tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4], Shared[D5]],
    ) -> None: ...
    @overload
    def __init__(
        self: ContextBuilder[tuple[Any, ...], Never, SixOrMore], data: SixOrMore
    ) -> None: ...
    @overload
    def __init__(
        self: ContextBuilder[D, Never, RwLock[D]], data: Callable[[], RwLock[D]]
    ) -> None: ...
    @overload
    def __init__(self: ContextBuilder[D, Never, Atom[D]], data: Callable[[], Atom[D]]) -> None: ...
    @overload
    def __init__(
        self: ContextBuilder[TimeSeriesView, Never, TimeSeries], data: Callable[[], TimeSeries]
    ) -> None: ...
    @overload
    def __init__(self: ContextBuilder[D, Never, RwLock[D]], data: Callable[[], D]) -> None: ...
    def __init__(self, data: Any) -> None:
        given = is_given(data)
        if given:
            shared(data)
        elif not callable(data):
            raise ConfigError(
                f"ContextBuilder({brief(data)}): give shared data, such as RwLock(...), as "
                f"with_data() takes it, or a type or function that makes the data"
            )
        self._make: Callable[[], Any] | None = None if given else data
        self._data: Any = data if given else None
        self._tasks: tuple[Any, ...] = ()
        self._interval: EveryLike = DEFAULT_INTERVAL
        self._config = RunnerConfig()
        self._channel: tuple[int, Overflow] | None = None

    def _with(self, **changes: Any) -> Any:
        builder = copy.copy(self)
        builder.__dict__.update(changes)
        return builder

    @overload
    def with_data(self, data: RwLock[I]) -> ContextBuilder[I, O, RwLock[I]]: ...
    @overload
    def with_data(self, data: Atom[I]) -> ContextBuilder[I, O, Atom[I]]: ...
    @overload
    def with_data(
        self: ContextBuilder[TimeSeriesView, O, Any], data: TimeSeries
    ) -> ContextBuilder[TimeSeriesView, O, TimeSeries]: ...
    @overload
    def with_data(self, data: Shared[I]) -> ContextBuilder[I, O, Shared[I]]: ...
    @overload
    def with_data(
        self: ContextBuilder[tuple[D1, D2], O, Any], data: tuple[Shared[D1], Shared[D2]]
    ) -> ContextBuilder[tuple[D1, D2], O, tuple[Shared[D1], Shared[D2]]]: ...
    @overload
    def with_data(
        self: ContextBuilder[tuple[D1, D2, D3], O, Any],
        data: tuple[Shared[D1], Shared[D2], Shared[D3]],
    ) -> ContextBuilder[tuple[D1, D2, D3], O, tuple[Shared[D1], Shared[D2], Shared[D3]]]: ...
    @overload
    def with_data(
        self: ContextBuilder[tuple[D1, D2, D3, D4], O, Any],
        data: tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4]],
    ) -> ContextBuilder[
        tuple[D1, D2, D3, D4], O, tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4]]
    ]: ...
    @overload
    def with_data(
        self: ContextBuilder[tuple[D1, D2, D3, D4, D5], O, Any],
        data: tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4], Shared[D5]],
    ) -> ContextBuilder[
        tuple[D1, D2, D3, D4, D5],
        O,
        tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4], Shared[D5]],
    ]: ...
    @overload
    def with_data(
        self: ContextBuilder[tuple[Any, ...], O, Any], data: SixOrMore
    ) -> ContextBuilder[tuple[Any, ...], O, SixOrMore]: ...
    def with_data(self, data: Any) -> Any:
        """Share this data, in the place of what the builder was given.

        :param data: an ``RwLock``, an ``Atom``, a ``TimeSeries``, or other shared data; or several
            of them as a tuple, of which tasks get a tuple of views, of one moment
        """
        return self._with(_data=data)

    def with_task(self, task: Runnable[I, T]) -> ContextBuilder[I, O | T, S_co]:
        """Add a task.

        :param task: what to run at each tick; its result may be of another type than those before
        """
        builder: ContextBuilder[I, O | T, S_co] = self._with(_tasks=(*self._tasks, task))
        return builder

    def with_tasks(self, tasks: Iterable[Runnable[I, T]]) -> ContextBuilder[I, O | T, S_co]:
        """Add several tasks.

        :param tasks: they come after those that are there
        """
        builder: ContextBuilder[I, O | T, S_co] = self._with(_tasks=(*self._tasks, *listed(tasks)))
        return builder

    def with_interval(self, interval: EveryLike) -> ContextBuilder[I, O, S_co]:
        """Say how often the tasks run; every 5 seconds if nothing is said.

        :param interval: how often: a TaskInterval, whose unit is that of every timestamp; or a
            timedelta or a text, such as ``"5s"``, or a CalendarInterval, which take the unit of the
            data, or seconds where it has none
        :raises ConfigError: if it is no length of time
        """
        interval_in(interval, None, "interval={}")
        builder: ContextBuilder[I, O, S_co] = self._with(_interval=interval)
        return builder

    def with_config(self, config: RunnerConfig) -> ContextBuilder[I, O, S_co]:
        """Say everything else.

        :param config: timeouts, the executor, longer windows, and the rest
        """
        builder: ContextBuilder[I, O, S_co] = self._with(_config=config)
        return builder

    def with_channel(
        self, capacity: int = DEFAULT_CAPACITY, overflow: Overflow = Overflow.BLOCK
    ) -> ContextBuilder[I, O, S_co]:
        """Say how results wait to be received.

        :param capacity: how many DataSets may wait
        :param overflow: what happens when more do
        """
        builder: ContextBuilder[I, O, S_co] = self._with(_channel=(capacity, overflow))
        return builder

    def with_key(
        self, by: str, key_idle: IntervalLike = DEFAULT_IDLE, max_keys: int = DEFAULT_MOST
    ) -> KeyedContextBuilder[I, O, S_co]:
        """Run each task once for each key, over a view of the rows of that key.

        ::

            trades = TimeSeries({"symbol": str, "price": float}, key="symbol")
            context, receiver, _ = (
                ContextBuilder(trades).with_task(mean).with_key("symbol").build()
            )

        What comes of a window is a :class:`~run_task.KeyedDataSet`.

        :param by: the column of the key, which the ``TimeSeries`` was made with
        :param key_idle: after how long without a row a key is forgotten, in the time of the rows
        :param max_keys: how many keys there may be in the rows that the data holds: a row whose
            key is one more is refused, and the least of several limits holds
        :raises ConfigError: if they cannot be
        """
        return KeyedContextBuilder(self, Keys.checked(by, key_idle, max_keys))

    def build(self) -> tuple[Context[I, O], Receiver[DataSet[O]], S_co]:
        """Check it all, and put it together.

        :return: the context, for a :class:`~run_task.Runner`; the receiver of its DataSets; and
            the data, to write to
        :raises ConfigError: if something about it cannot work
        """
        built: tuple[Context[I, O], Receiver[DataSet[O]], S_co] = self.put_together(Context[I, O])
        return built

    def put_together(self, make: Callable[..., Any]) -> tuple[Any, Any, Any]:
        """The same with a context of another kind.

        :param make: makes it, of its parts by name
        """
        config = self._config
        if not isinstance(config, RunnerConfig):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise ConfigError(f"with_config({config!r}): it takes a RunnerConfig")
        capacity, overflow = self._channel_of(config)
        ends: tuple[Sender[Any], Receiver[Any]] = sole_channel(capacity, overflow, config.name)
        sender, receiver = ends
        data: Any = self._data if self._data is not None else self._made()
        context: Context[I, O] = make(
            tasks=self._tasks, data=data, interval=self._interval, sender=sender, config=config
        )
        check_calls(context.tasks)
        for warning in warnings_of(context.data, context.interval, config):
            _log.warning("%s: %s", config.name, warning, extra={"runner": config.name})
        return context, receiver, data

    def _made(self) -> Any:
        """The data that the given type or function makes."""
        make = self._make
        assert make is not None
        try:
            inspect.signature(make).bind()
        except TypeError as error:
            name = getattr(make, "__name__", repr(make))
            raise ConfigError(
                f"ContextBuilder({name}): it cannot be called without arguments, to make the data "
                f"({error}): give the data itself, or a function that makes it"
            ) from None
        except ValueError:
            pass  # of C, and without a signature
        made = make()
        kept: Any = cast("Any", made) if isinstance(made, _SHARED) else RwLock(made)
        return kept

    def _channel_of(self, config: RunnerConfig) -> tuple[int, Overflow]:
        """The capacity and the overflow of the channel."""
        deprecated = {
            name: value
            for name in ("channel_capacity", "overflow")
            if (value := getattr(config, name)) is not None
        }
        if self._channel is None:
            return (
                deprecated.get("channel_capacity", DEFAULT_CAPACITY),
                deprecated.get("overflow", Overflow.BLOCK),
            )
        for name, value in deprecated.items():
            raise ConfigError(
                f"with_config(RunnerConfig({name}={value})) and with_channel() say two things: "
                f"leave {name}= out"
            )
        return self._channel


class KeyedContextBuilder(Generic[I, O, S_co]):
    """A :class:`ContextBuilder` of tasks that are run once for each key.

    :meth:`ContextBuilder.with_key` gives one.
    """

    def __init__(self, builder: ContextBuilder[I, O, S_co], keys: Keys) -> None:
        self._builder = builder
        self._keys = keys

    def _with(self, builder: ContextBuilder[I, T, S_co]) -> KeyedContextBuilder[I, T, S_co]:
        return KeyedContextBuilder(builder, self._keys)

    def with_task(self, task: Runnable[I, T]) -> KeyedContextBuilder[I, O | T, S_co]:
        """As :meth:`ContextBuilder.with_task`."""
        return self._with(self._builder.with_task(task))

    def with_tasks(self, tasks: Iterable[Runnable[I, T]]) -> KeyedContextBuilder[I, O | T, S_co]:
        """As :meth:`ContextBuilder.with_tasks`."""
        return self._with(self._builder.with_tasks(tasks))

    def with_interval(self, interval: EveryLike) -> KeyedContextBuilder[I, O, S_co]:
        """As :meth:`ContextBuilder.with_interval`."""
        return self._with(self._builder.with_interval(interval))

    def with_config(self, config: RunnerConfig) -> KeyedContextBuilder[I, O, S_co]:
        """As :meth:`ContextBuilder.with_config`."""
        return self._with(self._builder.with_config(config))

    def with_channel(
        self, capacity: int = DEFAULT_CAPACITY, overflow: Overflow = Overflow.BLOCK
    ) -> KeyedContextBuilder[I, O, S_co]:
        """As :meth:`ContextBuilder.with_channel`."""
        return self._with(self._builder.with_channel(capacity, overflow))

    def build(self) -> tuple[KeyedContext[I, O], Receiver[KeyedDataSet[Any, O]], S_co]:
        """Check it all, and put it together.

        :return: the context, for a :class:`~run_task.Runner`; the receiver of its KeyedDataSets;
            and the data, to write to
        :raises ConfigError: if something about it cannot work
        """
        keys = self._keys

        def make(**parts: Any) -> KeyedContext[I, O]:
            return KeyedContext[I, O](keys=keys, **parts)

        built: tuple[KeyedContext[I, O], Receiver[KeyedDataSet[Any, O]], S_co]
        built = self._builder.put_together(make)
        return built
