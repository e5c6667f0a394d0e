"""The runner: wait for the tick, take the view, run the tasks, send the DataSet."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Generic, Protocol, TypeVar

from run_task._window import Due, Window
from run_task.data._protocol import window_bound
from run_task.errors import ChannelClosed, LockTimeout, RunTaskError, ShutdownTimeout, TaskError
from run_task.executors import Tick, Ticks, driver
from run_task.observe._log import Log
from run_task.runner._config import OnError
from run_task.runner._context import Context
from run_task.runner._running import Running
from run_task.runner._signals import shut_down_on_sigterm
from run_task.runner._stats import RECENT, Percentiles, RunnerStats
from run_task.runner._telemetry import Losses, Telemetry
from run_task.runner._ticker import Ticker
from run_task.sync._alarm import Alarm, AsyncAlarm, Bell
from run_task.sync._channel import Sender
from run_task.tasks._dataset import DataSet
from run_task.time._clock import Clock, SystemClock

I = TypeVar("I")
O = TypeVar("O")

_tick_of: Final = Tick.of  # bound once, and not at every tick

_LAST_WORDS: Final = 0.5
"""How many seconds a runner has to deliver its last DataSet once its tasks were given up."""


class Gate(Protocol):
    """What a window passes before it begins."""

    def wait(self, window: Window, /) -> Sequence[str] | None:
        """Wait for what comes before a window.

        :return: the names of those that it did not wait for, for :attr:`DataSet.behind`; None:
            there was to be no such window, and the runner ends
        """
        ...

    def read(self, timeout: float | None = None, /) -> AbstractContextManager[Any]:
        """Give the window that has waited its view of the data.

        :raises LockTimeout: on entering the block, if it could not be had in time
        """
        ...

    def passed(self) -> None:
        """The window has its view of the data."""
        ...


class Runner(Running, Generic[I, O]):
    """Runs the tasks of a context at its interval, until it is shut down.

    Run it in one of four ways: ``await runner.run()``, ``runner.run_sync()``, or in a ``with`` or
    ``async with`` block, at whose end it is shut down. A thread of its own does the work, so
    neither a busy event loop nor a slow consumer makes a window late. A runner runs once.

    At its end, it raises a :class:`~run_task.ShutdownTimeout` if it did not end within
    ``shutdown_timeout``, and with ``OnError.RAISE`` the ``TaskError`` of the task that gave no
    result.

    :param context: what to run
    :param clock: where to read the time; a ``VirtualClock`` for tests
    :param since_ns: begin with the window that holds this time, in nanoseconds since the Unix
        epoch; None: with the one that holds now
    :param gate: what each window waits for before its view of the data is taken
    """

    def __init__(
        self,
        context: Context[I, O],
        *,
        clock: Clock | None = None,
        since_ns: int | None = None,
        gate: Gate | None = None,
    ) -> None:
        super().__init__()
        self._context = context
        self._config = context.config
        self._log = Log(__name__, self._config.name)
        self._clock = clock if clock is not None else SystemClock()
        self._crew = self._config.executor_instance.start(
            context.tasks,
            data=context.data,
            name=self._config.name,
            task_timeout=self._config.task_timeout,
            workers=self._config.worker_count,
        )
        self._since_ns = since_ns
        self._gate = gate
        self._mutex = threading.Lock()
        self._started = False
        self._stopping = False
        self._stopped_at = 0.0  # by the monotonic clock, once stopping
        self._abandoned = False
        self._ended = False
        self._failure: BaseException | None = None
        self._ticker: Ticker | None = None
        self._telemetry: Telemetry | None = None
        self._bells: list[Bell] = []  # of those who wait for the end
        self._last_thread: threading.Thread | None = None
        self._due: Due | None = None  # the window in hand
        self._ticks = 0
        self._lost = 0
        self._late_ns: deque[int] = deque(maxlen=RECENT)
        self._duration: deque[float] = deque(maxlen=RECENT)

    @property
    def name(self) -> str:
        """The name that its config gives it."""
        return self._config.name

    @property
    def stats(self) -> RunnerStats:
        """How it has been doing. At any time, from any thread."""
        missed, dropped = self._losses()
        return RunnerStats(
            ticks=self._ticks,
            missed=missed,
            dropped=dropped,
            lateness=Percentiles.of(self._late_ns, 1e-9),
            duration=Percentiles.of(self._duration),
        )

    @property
    def _window(self) -> Window | None:
        """The window in hand."""
        due = self._due
        return None if due is None else Window(*due[:2])

    def _losses(self) -> Losses:
        skipped = self._ticker.skipped if self._ticker is not None else 0
        return Losses(self._lost + skipped, self._context.sender.dropped)

    # The engine

    def _engine(self, ticker: Ticker) -> Ticks:
        """The loop, and what comes after it, in whichever thread drives it by then."""
        timeout = self._config.data_timeout
        gate = self._gate
        data = self._context.data if gate is None else gate
        bound = window_bound(self._context.data, self._context.interval.unit)
        send = self._context.sender.send
        if self._telemetry is not None:
            send = self._telemetry.telling(send)
        note_lateness = self._late_ns.append
        note_duration = self._duration.append
        behind: Sequence[str] = ()
        failure: BaseException | None = None
        try:
            while (due := ticker.next()) is not None:
                self._due = due
                if gate is not None:
                    lacks = gate.wait(Window(*due[:2]))
                    if lacks is None:
                        self._due = None
                        break
                    behind = lacks
                try:
                    with data.read(timeout) as view:
                        if gate is not None:
                            gate.passed()
                        seen = view if bound is None else bound(view, due[0], due[1])
                        dataset = yield _tick_of(seen, due, behind)
                        del (
                            view,
                            seen,
                        )  # whoever waits for the next tick does not keep this one's data
                except LockTimeout as error:
                    dataset = self._without_view(due, behind, error)
                send(dataset)
                self._due = None
                self._ticks += 1
                note_lateness(due[2])
                # Past the properties, which take as long as a quarter of a trivial task each.
                note_duration(dataset._took)  # pyright: ignore[reportPrivateUsage]
                if dataset._errors:  # pyright: ignore[reportPrivateUsage]
                    self._note(dataset.errors)
        except GeneratorExit:
            raise  # the interpreter is going down
        except ChannelClosed as error:
            about = {"window": self._window}
            self._log.info("%s ends, nobody listens: %s", self.name, error, extra=about)
        except BaseException as error:
            failure = error
            about = {
                "task": getattr(error, "task", None),
                "window": getattr(error, "window", self._window),
            }
            self._log.error("%s ends: %s", self.name, error, extra=about)
        self.shutdown()
        self._context.sender.close()
        self._crew.close(self._remaining())
        self._last_thread = threading.current_thread()
        if hung := self._crew.running():
            failure = ShutdownTimeout(self.name, self._config.shutdown_timeout, hung)
        self._end(failure)

    def _without_view(self, due: Due, behind: Sequence[str], cause: LockTimeout) -> DataSet[Any]:
        """What comes of a tick without data: an error for every task."""
        start, end, late_ns = due
        window = Window(start, end)
        errors = {task.name: TaskError(task.name, window) for task in self._context.tasks}
        for error in errors.values():
            error.__cause__ = cause
        return DataSet(window, errors=errors, lateness=late_ns / 1e9, behind=behind)

    def _note(self, errors: Mapping[str, TaskError]) -> None:
        for error in errors.values():
            about = {"task": error.task, "window": error.window}
            self._log.warning("%s: %s", self.name, error, extra=about)
        if self._config.on_error is OnError.RAISE:
            raise next(iter(errors.values()))

    def _end(self, failure: BaseException | None) -> None:
        with self._mutex:
            if self._ended:
                return  # given up, and come back after all
            if (window := self._window) is not None:
                self._lost += 1
                about = {"window": window}
                self._log.warning("%s: the window %s is lost", self.name, window, extra=about)
            self._failure = failure
            self._ended = True
        if self._telemetry is not None:
            self._telemetry.close()
        self._ring()

    # Start and end

    def start(self) -> None:
        """Begin to run, and return. Who starts a runner shuts it down and joins it.

        A ``with`` block does all that, and sees to SIGTERM besides.

        :raises RunTaskError: if it has run before, or another one with its context
        """
        with self._mutex:
            if self._started:
                raise RunTaskError(
                    f"runner {self.name!r} has been run before, and a runner runs once: "
                    f"make a new one, with a new context"
                )
            sender = self._context.sender
            if isinstance(sender, Sender) and sender.closed:
                raise RunTaskError(
                    f"runner {self.name!r}: the channel of its context is closed, as a runner does "
                    f"when it ends: build a new context for it"
                )
            self._started = True
        self._ticker = ticker = Ticker(
            self._context.interval, self._config, self._clock, self._since_ns
        )
        self._telemetry = Telemetry.if_set_up(self.name, self._clock, self._losses)
        if self._stopping:
            ticker.stop()  # shut down before it began
        threading.Thread(
            target=driver(self._crew),
            args=(self._engine(ticker),),
            name=f"run-task {self.name}",
            daemon=True,  # a task that hangs must not keep the process from ending
        ).start()

    def join(self) -> None:
        """Wait until it has ended.

        :raises ShutdownTimeout: if it did not end within ``shutdown_timeout``
        :raises Exception: what else made it end
        """
        self._wait()
        self._report(None)

    def finish(self, last_ns: int) -> None:
        """Run up to the window that holds this time, and end.

        :param last_ns: the time, in nanoseconds since the Unix epoch
        """
        if self._ticker is not None:
            self._ticker.finish(last_ns)

    @property
    def first_end_ns(self) -> int:
        """The end of the first window, in nanoseconds since the Unix epoch.

        :raises RunTaskError: if it has not been started
        """
        return self._started_ticker().first_end_ns

    @property
    def next_end_ns(self) -> int:
        """The end of the next window to begin, in nanoseconds since the Unix epoch.

        :raises RunTaskError: if it has not been started
        """
        return self._started_ticker().next_end_ns

    def _started_ticker(self) -> Ticker:
        if self._ticker is None:
            raise RunTaskError(f"runner {self.name!r} has no windows before it is started")
        return self._ticker

    def shutdown(self) -> None:
        """Finish the window in hand, deliver it, and end.

        Returns at once. It may be called from any thread, any number of times, and in a signal
        handler: it takes no lock.
        """
        if self._stopping:
            return
        self._stopped_at = time.monotonic()
        self._stopping = True
        if self._ticker is not None:
            self._ticker.stop()
        self._context.sender.unbound()
        self._ring()

    def _begin(self) -> None:
        with contextlib.ExitStack() as opened:
            opened.enter_context(shut_down_on_sigterm(self.shutdown))
            try:
                self.start()
            except KeyboardInterrupt:  # there is no block yet whose end would shut it down
                self.shutdown()
                raise
            self._exit = opened.pop_all()

    def _ring(self) -> None:
        for bell in tuple(self._bells):
            bell.ring()

    def _remaining(self) -> float:
        """How many seconds the shutdown may still take."""
        return max(0.0, self._stopped_at + self._config.shutdown_timeout - time.monotonic())

    def _wait(self) -> None:
        """Wait for the end; once shut down, no longer than that may take."""
        alarm = Alarm()
        self._bells.append(alarm)
        while not self._ended:
            if not alarm.wait(self._patience()):
                self._give_up()
        self._join()

    async def _wait_async(self) -> None:
        alarm = AsyncAlarm()
        self._bells.append(alarm)
        while not self._ended:
            if not await alarm.wait(self._patience()):
                self._give_up()
        self._join()

    def _join(self) -> None:
        """See the thread off that ended the loop: it has nothing left to do."""
        if self._last_thread is not None:
            self._last_thread.join()

    def _patience(self) -> float | None:
        """How many seconds to wait before giving up on what is waited for."""
        if not self._stopping:
            return None
        return _LAST_WORDS if self._abandoned else self._remaining()

    def _give_up(self) -> None:
        """First on the tasks that hang, so that the rest is delivered; then on the engine, too."""
        if not self._abandoned:
            self._abandoned = True
            self._crew.abandon()
            return
        self._context.sender.close()
        config = self._config
        self._end(ShutdownTimeout(config.name, config.shutdown_timeout, self._crew.running()))

    def _report(self, exc: BaseException | None) -> None:
        failure = self._failure
        if failure is None:
            return
        if isinstance(exc, Exception):
            exc.add_note(f"besides, runner {self.name!r} failed: {failure}")
        else:
            raise failure
