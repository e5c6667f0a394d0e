"""One thread of the process that looks after what other threads are busy with.

A thread that is busy cannot look at the clock: so another one does, every few milliseconds
while anything is in hand, and sleeps when nothing is.
"""

from __future__ import annotations

import os
import threading
from typing import Final, Protocol

from run_task.observe._log import Log
from run_task.sync._alarm import Alarm

_LULL: Final = 0.005
"""For how many seconds nothing must be in hand before the watch sleeps: one thing may follow on
another, and to be woken for each costs more than many a thing itself."""

_log = Log(__name__)


class Watchable(Protocol):
    """What has something in hand at times."""

    def look(self) -> float | None:
        """Do what is overdue.

        :return: in how many seconds to look again; None: nothing is in hand
        """
        ...


class Watch:
    """Looks after all that was added to it. :func:`watch` gives the one of this process.

    A thread that takes something in hand notes that first, and then looks whether the watch is
    asleep; the watch, before it sleeps, does it the other way round. So one of the two sees the
    other.
    """

    def __init__(self) -> None:
        self.asleep: bool = True
        """Whether it has to be woken when something is taken in hand."""
        self._alarm = Alarm()
        self._mutex = threading.Lock()
        self.watched: tuple[Watchable, ...] = ()
        """What it looks after."""
        self._thread: threading.Thread | None = None  # the last one that was started
        self._running = False  # whether it is to go on

    def add(self, what: Watchable) -> None:
        """Look after this, too, once woken."""
        with self._mutex:
            if all(other is not what for other in self.watched):
                self.watched = (*self.watched, what)

    def remove(self, what: Watchable) -> None:
        """Stop looking after this. The thread ends with the last that there is."""
        with self._mutex:
            self.watched = tuple(other for other in self.watched if other is not what)
            if self.watched:
                return
        self._alarm.ring()

    def wake(self) -> None:
        """Look at once. Where no thread can be started, nothing is looked after, and the log
        says so."""
        self.asleep = False  # before the next look: a thread that ends does it the other way round
        if not self._running:
            with self._mutex:
                if not self.watched:
                    self.asleep = True  # whoever comes next has to start the thread
                elif not self._running:
                    self._start()
        self._alarm.ring()

    def settle(self) -> None:
        """Wait for the end of the thread, if there is nothing left to look after."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        while not self.watched and thread.is_alive():
            thread.join(_LULL)  # and look again: it does not end if something is added meanwhile

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="run-task watch", daemon=True)
        self._running = True
        try:
            thread.start()
        except RuntimeError as error:
            self._running = False
            self.asleep = True
            _log.warning("tasks that hang and runners that are slow go unnoticed: %s", error)
        else:
            self._thread = thread

    def _run(self) -> None:
        lull = False
        while True:
            pause = self._look()
            if pause is not None:
                lull = self.asleep = False
            elif not lull:
                lull = True
                pause = _LULL
            else:
                lull = False
                self.asleep = True
                pause = self._look()
                if pause is not None:
                    self.asleep = False
            with self._mutex:
                if not self.watched:
                    self._running = False
                    self.asleep = True
                    return
            self._alarm.wait(pause)

    def _look(self) -> float | None:
        soonest: float | None = None
        for what in self.watched:
            try:
                pause = what.look()
            except Exception:
                _log.exception("%r cannot be looked after", what)  # an error of this library
                continue
            if pause is not None:
                soonest = pause if soonest is None else min(soonest, pause)
        return soonest


_watch: Final = Watch()


def watch() -> Watch:
    """The watch of this process."""
    return _watch


if hasattr(os, "register_at_fork"):
    # In a forked child there is no thread, and nothing of its parent's to look after.
    os.register_at_fork(after_in_child=lambda: Watch.__init__(_watch))
