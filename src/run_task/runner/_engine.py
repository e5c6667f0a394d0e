"""A runner's loop: the window that is due, the view, the tasks, and where the DataSet goes.

:class:`~run_task.Runner` is this with a channel; a stage of a live pipeline is this with a gate in
front and what comes after it behind.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from run_task._window import Due, Window
from run_task.data._protocol import Shared, Viewable
from run_task.errors import (
    ChannelClosed,
    LockTimeout,
    RunTaskError,
    ShutdownTimeout,
    TaskError,
    described,
)
from run_task.executors._protocol import PreparingCrew, SucceedingCrew, Ticks, driver
from run_task.executors._states import States, bound
from run_task.observe._log import Log
from run_task.runner._config import OnError, RunnerConfig
from run_task.runner._crews import NextTasks, RetiredCrews
from run_task.runner._keys import Keys, bound_of, crew_of
from run_task.runner._own_data import OwnData, references
from run_task.runner._scheduler import NOT_OVERSLEPT, Entry, Scheduler, is_scheduled, scheduler_of
from run_task.runner._stats import RECENT, Percentiles, RunnerStats
from run_task.runner._task_set import TaskSet
from run_task.runner._telemetry import Losses, Telemetry
from run_task.runner._ticker import Ticker
from run_task.runner._timeline import Timeline
from run_task.sync._alarm import AnyAlarm
from run_task.sync._fork import forget_after_fork
from run_task.sync._lifecycle import Lifecycle, Phase
from run_task.sync._waiting import Wait, wait_thread
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.time._calendar import Interval
from run_task.time._clock import Clock, SystemClock
from run_task.time._shown import window_shown

DELIVERY: Final = 0.5
"""How many seconds there are to deliver what is there, once what hangs was given up."""


class Outlet(Protocol):
    """Where DataSets go."""

    @property
    def dropped(self) -> int:
        """How many were lost."""
        ...

    def send(self, dataset: Any, /) -> None:
        """Take a DataSet, or a KeyedDataSet of an engine with keys.

        :raises ChannelClosed: if the receiver is closed; the engine ends
        """
        ...

    def unbound(self) -> None:
        """Let no caller block from now on. Safe in a signal handler."""
        ...

    def close(self) -> None:
        """There are no more."""
        ...


class LeftOut(enum.Enum):
    """What a gate says of a window that is not given."""

    LEFT_OUT = "left out"
    PAUSED = "paused"


LEFT_OUT: Final = LeftOut.LEFT_OUT
PAUSED: Final = LeftOut.PAUSED


class Gate(Protocol):
    """What a window passes before it begins."""

    def catch_up(self, due_ns: int, /) -> None:
        """A window was overslept: wait for what is there, and could not come while the process
        stood still.

        :param due_ns: when it was due, in nanoseconds of the monotonic clock
        """
        ...

    def wait(self, start: int, end: int, next_end_ns: int, /) -> Sequence[str] | LeftOut | None:
        """Wait for what comes before a window.

        :param start: the window's start, in the interval's unit
        :param end: its end
        :param next_end_ns: the end of the window after it, in nanoseconds since the Unix epoch
        :return: the names of those that it did not wait for, for :attr:`DataSet.behind`;
            ``LEFT_OUT``: this window is not given, and has passed; ``PAUSED``: so it is, since it
            fell into a pause; None: there was to be no such window, and the engine ends
        """
        ...

    def read(self, timeout: float | None = None, /) -> AbstractContextManager[Any]:
        """Give the window that has waited its view of the data. What comes after it may enter once
        the block is entered.

        :raises LockTimeout: on entering the block, if it could not be had in time
        """
        ...

    def done(self) -> None:
        """The window gives nothing."""
        ...


class Engine:
    """Runs tasks at an interval, window after window, until it is shut down. It runs once.

    It has no thread of its own: a scheduler activates it when a window is due.

    :param tasks: what to run, and what of it is paused
    :param data: what the tasks read
    :param interval: how often
    :param config: how it behaves
    :param outlet: where DataSets go
    :param clock: where to read the time; None: this machine's
    :param timeline: the time, if engines share one; None: one of its own
    :param since_ns: begin with the window that holds this time, in nanoseconds since the Unix
        epoch; None: with the one that holds now
    :param first_ns: go on with the first window that ends after this, on the grid that so begins;
        None: begin with its first
    :param gate: what each window waits for before its view of the data is taken
    :param keys: by which keys tasks are run; None: by none
    :param states: the states of the tasks; None: they begin with their first
    :param rank: of windows that fall due at one time, those of the least rank are run first
    """

    # More than thirty attributes, which in a dict of its own would take twice as long to reach.
    __slots__ = (
        "__weakref__",
        "_awake_ns",
        "_begun",
        "_bound",
        "_change_lock",
        "_changes",
        "_clock",
        "_crew",
        "_crew_closed",
        "_data",
        "_declared",
        "_drive",
        "_due",
        "_duration",
        "_duration_sum",
        "_empty",
        "_fault",
        "_first_ns",
        "_gate",
        "_interval",
        "_is_back",
        "_is_paused",
        "_keys",
        "_last_thread",
        "_late_ns",
        "_late_ns_sum",
        "_log",
        "_lost",
        "_mutex",
        "_next",
        "_outlet",
        "_own",
        "_passed_over",
        "_place",
        "_rank",
        "_retired",
        "_send",
        "_since_ns",
        "_tasks",
        "_telemetry",
        "_ticker",
        "_ticks",
        "_timeline",
        "_was_activated",
        "config",
        "failure",
        "lifecycle",
        "name",
        "states",
    )

    def __init__(
        self,
        tasks: TaskSet,
        data: Shared[Any],
        interval: Interval,
        config: RunnerConfig,
        outlet: Outlet,
        *,
        clock: Clock | None = None,
        timeline: Timeline | None = None,
        since_ns: int | None = None,
        first_ns: int | None = None,
        gate: Gate | None = None,
        rank: int = 0,
        keys: Keys | None = None,
        states: States | None = None,
    ) -> None:
        self.name: str = config.name
        self.config: Final = config
        self.lifecycle: Final = Lifecycle()
        self.failure: BaseException | None = None
        """What it ended by, once it has ended."""
        self.states: Final = States() if states is None else states
        self._declared = tasks  # as they are to be by now
        self._tasks = self.states.bind(tasks.tasks, tasks.paused)
        self._data = data
        self._interval = interval
        self._keys = keys
        self._bound = bound_of(data, interval, config, keys, self.states)
        self._empty = 0
        self._outlet = outlet
        self._log = Log(__name__, self.name)
        self._clock = clock if clock is not None else SystemClock()
        self._timeline = timeline
        self._since_ns = since_ns
        self._first_ns = first_ns
        self._gate = gate
        self._rank = rank
        self._crew = crew_of(self._tasks, data, interval, config, keys, self.states)
        self._drive: Callable[[Ticks], None] | None = None  # from the start on
        self._next: NextTasks | None = None  # from the next window on
        self._retired = RetiredCrews(self.name, self._log)
        self._mutex = threading.Lock()
        self._change_lock = threading.Lock()  # held while tasks are made ready to run
        self._ticker: Ticker | None = None
        self._place: tuple[Scheduler, Entry] | None = None
        self._awake_ns = NOT_OVERSLEPT  # no window is left that was due when that was overslept
        self._telemetry: Telemetry | None = None
        self._send = outlet.send
        self._last_thread: threading.Thread | None = None
        self._due: Due | None = None  # the window in hand
        self._fault: BaseException | None = None  # what it is to end by
        self._begun = self._was_activated = False
        self._crew_closed = False
        self._is_back = False  # it has been put back since it was activated
        forget_after_fork(self)
        self._own = OwnData(data)
        # In place, after a tick. Asked once, since to ask a protocol takes as long as a tick.
        # Of results by key nobody looks at each.
        self._changes = keys is None and not isinstance(data, Viewable)
        self._ticks = 0
        self._lost = 0
        self._is_paused = False
        self._passed_over = 0  # windows that fell into pauses
        self._late_ns: deque[int] = deque(maxlen=RECENT)
        self._duration: deque[float] = deque(maxlen=RECENT)
        self._late_ns_sum, self._duration_sum = 0, 0.0

    def after_fork(self) -> None:
        """In a forked child, none of the threads is there that would bring it to its end."""
        self._mutex = threading.Lock()
        self._change_lock = threading.Lock()
        self._retired.after_fork()
        self._place = self._last_thread = None
        self.lifecycle.after_fork()

    @property
    def stats(self) -> RunnerStats:
        """How it has been doing. At any time, from any thread."""
        missed, dropped = self._losses()
        return RunnerStats(
            ticks=self._ticks,
            missed=missed,
            dropped=dropped,
            empty=self._empty,
            paused=self._passed_over,
            lateness=Percentiles.of(self._late_ns, self._late_ns_sum, 1e-9),
            duration=Percentiles.of(self._duration, self._duration_sum),
        )

    @property
    def _window(self) -> Window | None:
        """The window in hand."""
        due = self._due
        return None if due is None else Window(*due[:2])

    def _losses(self) -> Losses:
        skipped = self._ticker.skipped if self._ticker is not None else 0
        return Losses(self._lost + skipped + self._passed_over, self._outlet.dropped)

    # The loop

    def activate(self) -> None:
        """Run the windows that are due."""
        if self._next is not None:
            self._take_next()
        assert self._drive is not None
        self._is_back, self._was_activated = False, True
        ticks = self._run_due()
        try:
            self._drive(ticks)
        except BaseException as error:  # an executor of the program's own breaks its promise
            self._fault = error
            if self._is_back:
                self.shutdown()  # it has been put back, and ends when it is activated next
                return
            try:
                ticks.close()
            except ValueError:
                self.shutdown()  # another thread goes on with it
            else:
                self._close(error)

    def follow_clock(self) -> int:
        """Take over a step of the wall clock. Returns when the next window is due."""
        ticker = self._started_ticker()
        ticker.timeline.follow()
        return ticker.follow()

    def lose_clock(self, error: BaseException) -> None:
        """End, since the clock cannot be read."""
        if self.lifecycle.phase < Phase.STOPPING:
            self._fault = error
            self._log.error("%s ends, its clock fails: %s", self.name, described(error))
            self.shutdown()

    def _run_due(self) -> Ticks:
        """The windows that are due, and what comes after them, in whichever thread drives it."""
        ticker = self._ticker
        assert ticker is not None
        assert self._place is not None
        poll = ticker.poll
        timeout = self.config.data_timeout
        interval = self._interval
        gate = self._gate
        scheduler, entry = self._place
        data = self._data if gate is None else gate
        bound = self._bound
        send = self._send
        note_lateness = self._late_ns.append
        note_duration = self._duration.append
        changes = self._changes
        states, stateful = self.states, self.states.any
        usual = self._own.references
        behind: Sequence[str] = ()
        failure: BaseException | None = None
        try:
            while self._next is None and (due := poll()) is not None:
                self._due = due
                if gate is not None:
                    if scheduler.overslept_ns != self._awake_ns:
                        self._catch_up(gate, scheduler, due[2])
                    missing = gate.wait(due[0], due[1], ticker.next_end_ns)
                    if missing is None:
                        self._due = None
                        ticker.stop()
                        break
                    if missing is LEFT_OUT or missing is PAUSED:
                        self._due = None
                        self._passed_over += missing is PAUSED
                        continue
                    behind = missing
                elif self._is_paused:
                    self._due = None
                    self._passed_over += 1
                    continue
                try:
                    with data.read(timeout) as view:
                        if self._crew_closed:  # given up while it waited for the view
                            ticker.stop()
                            break
                        if bound is not None:
                            view = bound(view, due[0], due[1])  # noqa: PLW2901  # the rest goes
                            if view is None:  # the window is empty
                                self._empty += 1
                                self._due = None
                                if gate is not None:
                                    gate.done()
                                continue
                        dataset = yield view, due, behind
                        if stateful:
                            dataset = states.settle(dataset)
                        if changes and references(view) != usual:
                            own = self._own
                            dataset = own.refuse(dataset, view)
                            own.settle(references(view))
                            usual = own.references
                        del view  # not to keep it alive until the next tick
                except LockTimeout as error:
                    dataset = self._without_view(due, behind, error)
                dataset._interval = interval  # pyright: ignore[reportPrivateUsage]  no call for it
                try:
                    send(dataset)
                except ChannelClosed as error:
                    about = {"window": self._window}
                    self._log.info("%s ends, nobody listens: %s", self.name, error, extra=about)
                    ticker.stop()
                    break
                self._due = None
                self._ticks += 1
                note_lateness(late_ns := due[2])
                self._late_ns_sum += late_ns
                # Past the properties, which take as long as a quarter of a trivial task each.
                took = dataset._took  # pyright: ignore[reportPrivateUsage]  as just said
                note_duration(took)
                self._duration_sum += took
                if dataset._errors:  # pyright: ignore[reportPrivateUsage]  as just said
                    self._note(dataset.errors)
            if not ticker.over:
                self._is_back = True  # from then on another thread may run the next one
                scheduler.put(entry, ticker.follow())
                return
        except GeneratorExit:
            raise  # the interpreter is going down
        except BaseException as error:
            failure = error
            about = {
                "task": getattr(error, "task", None),
                "window": getattr(error, "window", self._window),
            }
            self._log.error("%s ends: %s", self.name, error, extra=about)
        if not is_scheduled():
            self._last_thread = threading.current_thread()
        self._close(failure)

    def _catch_up(self, gate: Gate, scheduler: Scheduler, late_ns: int) -> None:
        """Everything has stood still: until before this window was due, or after."""
        overslept_ns = scheduler.overslept_ns
        due_ns = self._clock.monotonic_ns() - late_ns
        if due_ns > overslept_ns:
            self._awake_ns = overslept_ns
        else:
            gate.catch_up(due_ns)

    def _put_back(self, ticker: Ticker) -> None:
        """Have the next window run when it is due. From then on another thread may run it."""
        assert self._place is not None
        scheduler, entry = self._place
        self._is_back = True
        scheduler.put(entry, ticker.follow())

    def _without_view(self, due: Due, behind: Sequence[str], cause: LockTimeout) -> AnyDataSet:
        """What comes of a tick without data: an error for every task."""
        start, end, late_ns = due
        window = Window(start, end)
        errors = {task.name: TaskError(task.name, window) for task in self._tasks}
        for error in errors.values():
            error.__cause__ = cause
        if self._keys is not None:
            by = self._keys.by
            return KeyedDataSet[Any, Any](
                window,
                by,
                errors=dict[Any, TaskError](errors),
                lateness=late_ns / 1e9,
                behind=behind,
            )
        return DataSet(window, errors=errors, lateness=late_ns / 1e9, behind=behind)

    def _note(self, errors: Mapping[Any, TaskError]) -> None:
        # A task that fails for thousands of keys is one record a window, with the first of them.
        told: dict[str, tuple[TaskError, int]] = {}
        for error in errors.values():
            first, count = told.get(error.task, (error, 0))
            told[error.task] = first, count + 1
        for error, count in told.values():
            about = {"task": error.task, "window": error.window}
            more = f" (and none for {count - 1:,} more keys)" if count > 1 else ""
            self._log.warning("%s: %s%s", self.name, error, more, extra=about)
        if self.config.on_error is OnError.RAISE:
            raise next(iter(errors.values()))

    # Other tasks

    def change_tasks(self, change: Callable[[TaskSet], TaskSet]) -> bool:
        """Run other tasks, from the next window on. From any thread; one change waits for another.

        What runs them is made ready here, so that no window waits for it. It takes the place of
        what runs the ones before between two windows.

        :param change: called with the tasks, and gives those to run
        :return: whether that changes anything
        :raises RunTaskError: if it ends
        :raises Exception: whatever the change raises, or the executor
        """
        with self._change_lock:
            tasks = change(self._declared)
            if tasks is self._declared:
                return False
            self._refuse_end()
            before = self._next
            states = self.states.of if before is None else before.states
            runs, states = bound(tasks.tasks, tasks.paused, self._declared.tasks, states)
            crew = crew_of(
                *(runs, self._data, self._interval, self.config, self._keys, self.states)
            )
            try:
                if self._begun:
                    crew.open()
                with self._mutex:
                    self._refuse_end()
                    before, self._next = self._next, NextTasks(runs, states, crew)
            except BaseException:
                crew.close(0.0)
                raise
            self._declared = tasks
        if before is not None:  # no window has come since
            self._retired.retire(before.crew, 0.0)
        return True

    def _refuse_end(self) -> None:
        if self._crew_closed or self.lifecycle.phase >= Phase.STOPPING:
            raise RunTaskError(f"runner {self.name!r} ends, and its tasks cannot be changed")

    def _take_next(self) -> None:
        """Let other tasks take the place of those before. Between two windows."""
        with self._mutex:
            given = self._next
            if given is None or self._crew_closed:
                return
            before, self._crew = self._crew, given.crew
            self._next = None
        if isinstance(before, SucceedingCrew) and isinstance(given.crew, SucceedingCrew):
            given.crew.succeed(before.hanging())
        self._tasks = given.tasks
        self.states.take(given.states)
        self._bound = bound_of(self._data, self._interval, self.config, self._keys, self.states)
        self._drive = driver(given.crew)
        self._retired.retire(before, self.config.shutdown_timeout)

    # The end

    def _close(self, failure: BaseException | None) -> None:
        """There are no more windows: let go of everything."""
        self.shutdown()
        if failure is None:
            failure = self._fault
        try:
            self._outlet.close()
            self._close_crew(self._remaining())
            self._retired.close(self._remaining())
            hung = self._hanging()
        except BaseException as error:  # of an executor, or another part, of the program's own
            self._log.error("%s: %s", self.name, described(error))
            failure = failure or error
        else:
            if hung:
                failure = ShutdownTimeout(self.name, self.config.shutdown_timeout, hung)
        self._end(failure)

    def _end(self, failure: BaseException | None) -> None:
        with self._mutex:
            if self.lifecycle.phase is Phase.ENDED:
                return  # given up, and come back after all
            if (window := self._window) is not None:
                self._lost += 1
                about = {"window": window}
                shown = window_shown(*window, self._interval)
                self._log.warning("%s: the window %s is lost", self.name, shown, extra=about)
            self.failure = failure
            if self._telemetry is not None:
                self._telemetry.close()
            if self._place is not None:
                scheduler, entry = self._place
                scheduler.remove(entry)
            self.lifecycle.advance(Phase.ENDED)

    def until_ended(self, alarm: AnyAlarm) -> Wait[None]:
        """The wait for the end; once shut down, no longer than that may take.

        First the tasks that hang are given up, so that the rest is delivered; then the engine, too.
        """
        until = self.lifecycle.until
        yield from until(alarm, Phase.STOPPING)
        if not (yield from until(alarm, Phase.ENDED, self._remaining())):
            self.abandon()
            if not (yield from until(alarm, Phase.ENDED, DELIVERY)):
                self.give_up()

    def abandon(self) -> None:
        """Give up the tasks that hang, so that the rest is delivered."""
        self.lifecycle.advance(Phase.ABANDONED)
        try:
            self._crew.abandon()
        except Exception as error:  # of an executor of the program's own
            self._log.error("%s: %s", self.name, described(error))

    def _hanging(self) -> Sequence[str]:
        """What still runs. A crew knows of what hangs in the one before it, too."""
        return list(dict.fromkeys([*self._crew.running(), *self._retired.running()]))

    def _close_crew(self, timeout: float) -> None:
        """Let go of what runs tasks, once."""
        with self._mutex:
            if self._crew_closed:
                return
            self._crew_closed = True
            given, self._next = self._next, None
        if given is not None:
            given.crew.close(0.0)
        self._crew.close(timeout)

    def give_up(self) -> None:
        """Take it for ended, whatever still goes on."""
        hung: Sequence[str] = ()
        try:
            self._outlet.close()
            hung = self._hanging()
            # If it is the data that hangs, no thread will come to do this.
            self._close_crew(0.0)
        except Exception as error:  # of an executor of the program's own
            self._log.error("%s: %s", self.name, described(error))
        self._end(ShutdownTimeout(self.name, self.config.shutdown_timeout, hung))

    def join(self) -> None:
        """Wait until it has ended.

        :raises Exception: what made it end, if it was no shutdown
        """
        wait_thread(self.until_ended)
        self.settle()
        if self.failure is not None:
            raise self.failure

    def settle(self) -> None:
        """Once it has ended, wait for the threads that have nothing left to do."""
        if self._last_thread is not None:
            self._last_thread.join()
        if self._place is not None:
            self._place[0].settle()

    # For those who own it

    @property
    def clock(self) -> Clock:
        """Where it reads the time."""
        return self._clock

    def set_rank(self, rank: int) -> None:
        """Be of another rank, from the next window on."""
        self._rank = rank
        if self._place is not None:
            self._place[1].rank = rank

    def pause(self, paused: bool) -> bool:
        """Run no window from the next one on, or run windows again, where there is no gate that
        does so. Returns whether that changes anything."""
        with self._mutex:
            before, self._is_paused = self._is_paused, paused
        return before is not paused

    def prepare(self) -> None:
        """Make ready what takes long, before it starts.

        :raises Exception: of what runs its tasks, if it cannot be
        """
        if isinstance(self._crew, PreparingCrew):
            self._crew.prepare()

    def start(self) -> None:
        """Begin to run, and return.

        :raises RunTaskError: if it has run before
        """
        with self._mutex:
            if self._begun:
                raise RunTaskError(
                    f"runner {self.name!r} has been run before, and a runner runs once: "
                    f"make a new one, with a new context"
                )
            self._begun = True
        try:
            with self._change_lock:
                self._take_next()
                ticker = self._make_ready()
        except BaseException as error:
            self._close(error)  # the receiver is not to wait in vain
            raise
        try:
            self._put_back(ticker)
        except Exception as error:  # of a clock of the program's own
            self._close(error)
            raise
        except KeyboardInterrupt:
            self.shutdown()
            if not self._was_activated:
                self._put_back(ticker)  # else nothing would ever bring it to its end
            raise
        if self.lifecycle.phase >= Phase.STOPPING:
            self._wake()

    def _make_ready(self) -> Ticker:
        self._crew.open()
        if self._timeline is None:
            self._timeline = Timeline(self._clock, self._log)
        self._ticker = ticker = Ticker(
            self._interval, self.config, self._timeline, self._since_ns, self._first_ns
        )
        self._telemetry = Telemetry.if_set_up(self.name, self._clock, self._losses)
        if self._telemetry is not None:
            self._send = self._telemetry.telling(self._send)
        if not self.lifecycle.advance(Phase.RUNNING):
            ticker.stop()  # shut down before it began
        self._drive = driver(self._crew)
        scheduler = scheduler_of(self._clock)
        self._place = scheduler, scheduler.add(self, self._rank)
        return ticker

    def shutdown(self) -> None:
        """Finish the window in hand, deliver it, and end. Returns at once; safe in a signal
        handler."""
        self.lifecycle.advance(Phase.STOPPING)
        if self.lifecycle.phase is Phase.ENDED:
            return
        # All of it each time: Ctrl-C may have come in the middle of a call before.
        if self._ticker is not None:
            self._ticker.stop()
        self._outlet.unbound()
        self._wake()

    def finish(self, last_ns: float, *, at_once: bool) -> None:
        """Run the windows that end by a time, and end.

        :param last_ns: the time, in nanoseconds since the Unix epoch
        :param at_once: whether to do so now, also those that are not due yet
        """
        if self._ticker is not None:
            self._ticker.finish(last_ns, at_once=at_once)
            self._wake()

    def _wake(self) -> None:
        if self._place is not None:
            scheduler, entry = self._place
            scheduler.wake(entry)

    @property
    def first_end_ns(self) -> int:
        """The end of the first window, in nanoseconds since the Unix epoch.

        :raises RunTaskError: if it has not been started
        """
        return self._started_ticker().first_end_ns

    def _started_ticker(self) -> Ticker:
        if self._ticker is None:
            raise RunTaskError(f"runner {self.name!r} has no windows before it is started")
        return self._ticker

    def _remaining(self) -> float:
        """How many seconds the shutdown may still take."""
        since = self.lifecycle.since(Phase.STOPPING)
        began = time.monotonic() if since is None else since
        return max(0.0, began + self.config.shutdown_timeout - time.monotonic())
