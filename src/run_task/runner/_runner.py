"""A runner: an engine, and a channel for its DataSets."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from run_task.errors import ConfigError, RunTaskError, add_note
from run_task.observe._format import brief
from run_task.observe._html import BOLD, marked
from run_task.observe._log import Log
from run_task.runner._changes import Changes
from run_task.runner._context import Context, KeyedContext
from run_task.runner._engine import Engine
from run_task.runner._running import Running
from run_task.runner._signals import shut_down_on_sigterm
from run_task.runner._stats import RunnerStats
from run_task.runner._task_set import TaskSet
from run_task.sync._alarm import AnyAlarm
from run_task.sync._lifecycle import Phase
from run_task.sync._waiting import Wait
from run_task.tasks._task import Runnable, name_of
from run_task.time._clock import Clock, check_clock

I = TypeVar("I")
O = TypeVar("O")


class Runner(Running, Generic[I, O]):
    """Runs the tasks of a context at its interval, until it is shut down.

    Run it in one of four ways: ``await runner.run()``, ``runner.run_sync()``, or in a ``with`` or
    ``async with`` block, at whose end it is shut down. Threads that all runners share do the work,
    so neither a busy event loop nor a slow consumer nor another runner makes a window late. A
    runner runs once.

    At its end, it raises a :class:`~run_task.ShutdownTimeout` if it did not end within
    ``shutdown_timeout``, and with ``OnError.RAISE`` the ``TaskError`` of the task that gave no
    result.

    :param context: what to run
    :param clock: where to read the time; a ``VirtualClock`` for tests
    :raises ConfigError: if these are no context and no clock
    """

    def __init__(self, context: Context[I, O], *, clock: Clock | None = None) -> None:
        super().__init__()
        if not isinstance(context, Context):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise ConfigError(
                f"Runner({brief(context)}): it is a Context, the first of what "
                f"ContextBuilder.build() gives"
            )
        if clock is not None:
            check_clock(clock)
        self._context = context
        self._changes = Changes(context.config.name, Log(__name__, context.config.name))
        self._engine = Engine(
            TaskSet(tuple(context.tasks)),
            context.data,
            context.interval,
            context.config,
            context.sender,
            clock=clock,
            keys=context.keys if isinstance(context, KeyedContext) else None,
        )

    @property
    def name(self) -> str:
        """The name that its config gives it."""
        return self._engine.name

    @property
    def states(self) -> dict[str, Any]:
        """The states of its tasks that have one, as of the last window, by task name; with keys a
        dict of key to state each."""
        return self._engine.states.told(by_key=isinstance(self._context, KeyedContext))

    @property
    def stats(self) -> RunnerStats:
        """How it has been doing. At any time, from any thread."""
        return replace(
            self._engine.stats,
            blocked=self._context.sender.blocked,
            changes=self._changes.latest,
        )

    def pause(self, *, task: str | Runnable[I, Any] | None = None) -> None:
        """Run no window, or not a task of it, from the next one on. Windows that fall due until
        :meth:`resume` give no DataSet, and count as ``missed``, and as ``paused``, in
        :attr:`stats`.

        A window that has begun is finished. From any thread, any number of times; before it is
        started, it begins paused.

        While a task is paused, windows give the results of the others, and its state stays as it
        is: :meth:`resume` goes on with that, as if there had been no windows between.

        :param task: a task, or its name; None: all windows
        :raises ConfigError: if there is no such task, or no other one is run
        :raises RunTaskError: of a task: if the runner ends
        """
        if task is None:
            if self._engine.pause(True):
                self._changes.note(self._engine.clock, "paused")
            return
        name = name_of(task)
        if self._engine.change_tasks(lambda tasks: tasks.with_paused(name)):
            self._changes.note(self._engine.clock, f"task {name!r} is paused")

    def resume(self, *, task: str | Runnable[I, Any] | None = None) -> None:
        """Run windows, or a task of them, again, from the next one that falls due.

        :param task: a task, or its name; None: windows; tasks that are paused stay so
        :raises ConfigError: if there is no such task
        :raises RunTaskError: of a task: if the runner ends
        """
        if task is None:
            if self._engine.pause(False):
                self._changes.note(self._engine.clock, "resumed")
            return
        name = name_of(task)
        if self._engine.change_tasks(lambda tasks: tasks.with_resumed(name)):
            self._changes.note(self._engine.clock, f"task {name!r} is resumed")

    def begin_with(self, states: Mapping[str, Any]) -> None:
        """Let tasks begin with these states in the place of their first.

        :param states: by task name; with keys a mapping of key to state each, as :attr:`states`
        :raises ConfigError: if no such task has a state, or it is no mapping
        :raises RunTaskError: once it runs
        """
        if self._engine.lifecycle.phase is not Phase.NEW:
            raise RunTaskError(f"runner {self.name!r} runs: begin_with() is for before that")
        self._engine.states.load(states, by_key=isinstance(self._context, KeyedContext))

    def add(self, task: Runnable[I, O]) -> None:
        """Run one more task, from the next window on.

        It is made ready in this thread, and so this may take as long as its processes take to be
        started. From any thread, also before it is started.

        :param task: the task; it comes after the others
        :raises ConfigError: if it cannot be run beside them; the message says why
        :raises RunTaskError: if the runner ends
        """
        self._engine.change_tasks(lambda tasks: tasks.added(task, self._engine.config))
        self._changes.note(self._engine.clock, f"task {task.name!r} is added")

    def remove(self, name: str | Runnable[I, Any]) -> None:
        """Run a task no more, from the next window on: the window in hand is finished with it. If
        it hangs, nothing waits for it any more. Its state is let go of.

        :param name: the task, or its name
        :raises ConfigError: if there is no such task, or it is the only one
        :raises RunTaskError: if the runner ends
        """
        called = name_of(name)
        self._engine.change_tasks(lambda tasks: tasks.removed(called))
        self._changes.note(self._engine.clock, f"task {called!r} is removed")

    def start(self) -> None:
        """Begin to run, and return. Who starts a runner shuts it down and joins it.

        A ``with`` block does all that, and also handles SIGTERM.

        :raises RunTaskError: if it has run before, or another one with its context
        """
        if self._engine.lifecycle.phase is Phase.NEW:
            self._context.claim()
        self._engine.start()

    def join(self) -> None:
        """Wait until it has ended.

        :raises ShutdownTimeout: if it did not end within ``shutdown_timeout``
        :raises Exception: what else made it end
        """
        self._wait()
        self._report(None)

    def shutdown(self) -> None:
        """Finish the window in hand, deliver it, and end.

        Returns at once. It may be called from any thread, any number of times, and in a signal
        handler: it takes no lock.
        """
        self._engine.shutdown()

    def _repr_html_(self) -> str:
        """How far it has come, and its stats."""
        phase = self._engine.lifecycle.phase.name.lower()
        told = marked(f"Runner {self.name!r}, every {self._context.interval}: {phase}", BOLD)
        return f"<div>{told}{self.stats._repr_html_()}</div>"  # pyright: ignore[reportPrivateUsage]  as a notebook calls it

    def _begin(self) -> None:
        with contextlib.ExitStack() as opened:
            opened.enter_context(shut_down_on_sigterm(self.shutdown))
            self.start()
            self._exit = opened.pop_all()

    def _until_ended(self, alarm: AnyAlarm) -> Wait[None]:
        """The wait for the end; once shut down, no longer than that may take."""
        return self._engine.until_ended(alarm)

    def _settle(self) -> None:
        self._engine.settle()

    def _report(self, exc: BaseException | None) -> None:
        failure = self._engine.failure
        if failure is None:
            return
        if isinstance(exc, Exception):
            add_note(exc, f"besides, runner {self.name!r} failed: {failure}")
        else:
            raise failure
