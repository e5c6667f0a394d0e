"""Several shared data as one: a tuple of views, of one moment.

What is behind locks is of one moment while all of the locks are held. To hold one while waiting for
another could be a deadlock: with a writer that has the other, and waits for this one. So only the
first is waited for; if another cannot be had at once, all are let go of, and that one is waited for
first. (``std::lock`` of C++ does so, too.) Where writers queue at each of them all the time, none
is ever to be had at once. So from the third try on, the others are waited for, too, for a
millisecond, and twice as long with each try: whoever waits for us meanwhile waits no longer.

What needs no lock is looked at twice: if nothing has changed from before the first view was taken
until after the last, all are of the time in between. (This is the double collect of Afek et al.,
*Atomic snapshots of shared memory*, 1993.) A thread that reads is not interrupted at each
instruction, but every few milliseconds, so the second or third try succeeds, however busy writers
are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from operator import is_
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from run_task.data._access import InstantAccess
from run_task.data._protocol import (
    Access,
    Generational,
    Relocatable,
    Versioned,
    Viewable,
    Windowed,
)
from run_task.data.series._timeseries import TimeSeries
from run_task.data.series._view import TimeSeriesView
from run_task.errors import ConfigError, LockTimeout
from run_task.observe._format import brief
from run_task.time._interval import TimeUnit

I_co = TypeVar("I_co", covariant=True)

_AT_ONCE: Final = 2
"""In how many tries no lock is held while another is waited for."""

_HELD_FOR: Final = 0.001
"""For how many seconds it is in the next try."""

_TRIES: Final = 1000
"""How often views are taken anew, if something has changed meanwhile."""


class Several(Generic[I_co]):
    """Several shared data, read as one: what users give as a tuple.

    :param members: the data; one may stand there several times, and is read once
    :param views: gives the views of those that are viewable; None: as they are now
    """

    def __init__(
        self, members: Sequence[Any], views: Callable[[], Sequence[Any]] | None = None
    ) -> None:
        self.members: Sequence[Any] = tuple(members)
        distinct = list({id(member): member for member in self.members}.values())
        self._held: Sequence[Any] = [m for m in distinct if not isinstance(m, Viewable)]
        viewable: Sequence[Any] = [m for m in distinct if isinstance(m, Viewable)]
        self._views = Moment(viewable) if views is None else views
        # Where the view of each member stands among those of the ones above.
        place = {id(member): i for i, member in enumerate([*self._held, *viewable])}
        self._places = [place[id(member)] for member in self.members]
        self._is_windowed = any(isinstance(member, Windowed) for member in distinct)
        self._versioned = [m for m in distinct if isinstance(m, Versioned)]
        self._relocatable = [m for m in distinct if isinstance(m, Relocatable)]
        # Of the others nobody can tell whether they were changed in place.
        self._is_opaque = any(not isinstance(m, Versioned) for m in self._held)
        self._looks = 0
        self._last: tuple[Any, ...] = ()

    @property
    def changing(self) -> Sequence[int]:
        """The positions of those whose data may be changed in place, after the block."""
        return [i for i, m in enumerate(self.members) if not isinstance(m, Viewable)]

    @property
    def unit(self) -> TimeUnit | None:
        """The unit of the first that has one."""
        units = (getattr(member, "unit", None) for member in self.members)
        return next((unit for unit in units if isinstance(unit, TimeUnit)), None)

    def read(self, timeout: float | None = None) -> Access[I_co]:
        """Give a tuple of what each gives, of one moment.

        :param timeout: how many seconds to wait, all in all; None: forever
        :raises LockTimeout: on entering the block, if they could not be had together in time
        """
        if self._held:
            return _Together(self, self._held, timeout)
        return InstantAccess(lambda: self.of([]))

    def of(self, held: Sequence[Any]) -> Any:
        """The tuple of views.

        :param held: what those have given that have to be read in a block
        """
        found = [*held, *self._views()]
        views = tuple([found[place] for place in self._places])
        if self._is_windowed:
            return views  # kept by nobody, since it keeps rows
        if len(views) == len(self._last) and all(map(is_, views, self._last)):
            return self._last  # the same object, so that it is sent to a process once
        self._last = views
        return views

    def windowed(self, unit: TimeUnit) -> Callable[[Any, int, int], Any]:
        """How to bound its views by windows: each in the unit of its own times.

        :param unit: the unit of the windows' starts and ends
        :return: a function of a tuple of views, and the start and the end of a window
        """
        if not self._is_windowed:
            return _whole
        bounds = [m.windowed(unit) if isinstance(m, Windowed) else _whole for m in self.members]

        def bounded(views: tuple[Any, ...], start: int, end: int) -> tuple[Any, ...]:
            return tuple([bound(view, start, end) for bound, view in zip(bounds, views)])

        return bounded

    @property
    def version(self) -> int:
        """Another number once something in its tuple was changed in place."""
        self._looks += self._is_opaque
        return self._looks + sum([member.version for member in self._versioned])

    def relocate(self, allocate: Callable[[int], Any]) -> None:
        """Move what can be moved to memory that other processes map.

        :param allocate: makes a block of memory of so many bytes
        """
        for member in self._relocatable:
            member.relocate(allocate)

    def __repr__(self) -> str:
        return f"({', '.join(map(brief, self.members))})"


class Moment:
    """Gives views of shared data that needs no lock, of one moment as far as the data tells when it
    changes.

    :param viewable: the data
    """

    def __init__(self, viewable: Sequence[Any]) -> None:
        self._viewable = viewable
        self._telling: Sequence[Any] = [one for one in viewable if isinstance(one, Generational)]
        self._tries = _TRIES if len(viewable) > 1 else 1

    def __call__(self) -> Sequence[Any]:
        telling = self._telling
        views: Sequence[Any] = ()
        for _ in range(self._tries):
            before = [one.generation for one in telling]
            views = [one.view() for one in self._viewable]
            if all(map(is_, before, [one.generation for one in telling])):
                break
        return views


class SeveralViewable(Several[I_co]):
    """Several shared data all of whose views can be kept."""

    def view(self) -> I_co:
        """The tuple of views, as they are now."""
        views: I_co = self.of([])
        return views


class _Together:
    """A block that gives several shared data together. It is entered once.

    :param several: puts together what they give
    :param held: those that have to be read in a block
    :param timeout: how many seconds to wait, all in all
    """

    __slots__ = ("_entered", "_held", "_several", "_timeout")

    def __init__(self, several: Several[Any], held: Sequence[Any], timeout: float | None) -> None:
        self._several = several
        self._held = held
        self._timeout = timeout
        self._entered: list[Any] = []

    def __enter__(self) -> Any:
        began, first, wait, held_for = time.monotonic(), 0, self._timeout, 0.0
        tries = 0
        while True:
            tries += 1
            values: list[Any] = []
            try:
                for one in self._order(first):
                    access = one.read(held_for if values else wait)
                    values.append(access.__enter__())
                    self._entered.append(access)
                return self._several.of(self._in_place(values, first))
            except LockTimeout as error:
                self._leave()
                first, wait = self._next(len(values), first, began, error)
                held_for = _held_for(tries, wait)
            except BaseException:
                self._leave()
                raise

    async def __aenter__(self) -> Any:
        began, first, wait, held_for = time.monotonic(), 0, self._timeout, 0.0
        tries = 0
        while True:
            tries += 1
            values: list[Any] = []
            try:
                for one in self._order(first):
                    access = one.read(held_for if values else wait)
                    values.append(await access.__aenter__())
                    self._entered.append(access)
                return self._several.of(self._in_place(values, first))
            except LockTimeout as error:
                await self._aleave()
                first, wait = self._next(len(values), first, began, error)
                held_for = _held_for(tries, wait)
            except BaseException:
                await self._aleave()
                raise

    def _order(self, first: int) -> Sequence[Any]:
        """All, that one first."""
        return [*self._held[first:], *self._held[:first]] if first else self._held

    def _in_place(self, values: Sequence[Any], first: int) -> Sequence[Any]:
        """What all have given, in the order in which they stand."""
        after = len(values) - first
        return [*values[after:], *values[:after]] if first else values

    def _next(
        self, having: int, first: int, began: float, error: LockTimeout
    ) -> tuple[int, float | None]:
        """Which to wait for next, and how long: the one that could not be had.

        :param having: how many could
        :param first: the first of them
        :param began: when the waiting began
        :raises LockTimeout: if it is too late
        """
        place = (first + having) % len(self._held)
        timeout = self._timeout
        left = None if timeout is None else began + timeout - time.monotonic()
        if having == 0 or (left is not None and left <= 0):
            members = self._several.members
            number = next(i for i, m in enumerate(members, 1) if m is self._held[place])
            raise LockTimeout(
                f"the {len(members)} inputs could not be read together within {timeout} s, "
                f"for the sake of number {number}: {error}"
            ) from error
        return place, left

    def _leave(self) -> None:
        while self._entered:
            self._entered.pop().__exit__(None, None, None)

    async def _aleave(self) -> None:
        while self._entered:
            await self._entered.pop().__aexit__(None, None, None)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._leave()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        await self._aleave()


def _held_for(tries: int, left: float | None) -> float:
    """For how many seconds locks are held in the next try while another is waited for.

    :param tries: how many have failed
    :param left: how many seconds are left; None: any number
    """
    if tries < _AT_ONCE:
        return 0.0
    longest = float("inf") if left is None else left
    return min(_HELD_FOR * 2.0 ** min(tries - _AT_ONCE, 30), longest)


def is_given(data: object) -> bool:
    """Whether somebody gave shared data, or a tuple of several, and not what makes it."""
    return isinstance(data, tuple) or _is_shared(data)


def shared(data: Any, what: str = "data") -> Any:
    """Shared data, whether it is given as such, or as a tuple of several.

    :param data: what a user gave
    :param what: what it is called in messages
    :raises ConfigError: if it is neither; the message says what is wrong with it
    """
    if type(data) is not tuple:
        if _is_shared(data):
            return data
        cure = ": give several as a tuple" if isinstance(data, list) else ""
        raise ConfigError(
            f"{what}={brief(data)} has no read(): put it in an RwLock, or give other shared data"
            f"{cure}"
        )
    members: tuple[Any, ...] = data  # pyright: ignore[reportUnknownVariableType]  of what, is looked at
    return of_several(members, what)


def of_several(members: Sequence[Any], what: str = "data") -> Several[Any]:
    """Several shared data as one.

    :raises ConfigError: if they are none, or one is no shared data
    """
    if not members:
        raise ConfigError(f"{what}=(): a tuple of shared data has one at least")
    for number, member in enumerate(members, 1):
        if isinstance(member, tuple | Several):
            raise ConfigError(
                f"{what}: number {number} of {len(members)} is a tuple itself: give one tuple of "
                f"all"
            )
        if not _is_shared(member):
            raise ConfigError(
                f"{what}: number {number} of {len(members)}, {brief(member)}, has no read(): put "
                f"it in an RwLock, or give other shared data"
            )
    if all(isinstance(member, Viewable) for member in members):
        return SeveralViewable(members)
    return Several(members)


def members_of(data: object) -> Sequence[Any] | None:
    """Several data, as they stand in the tuple; None: it is one."""
    return data.members if isinstance(data, Several) else None


def inputs_of(data: object) -> Sequence[Any]:
    """The data of which some shared data is made, each once: itself, or several."""
    if not isinstance(data, Several):
        return (data,)
    return list({id(member): member for member in data.members}.values())


def each_by(data: Any, make: Callable[[Any], Any]) -> Any:
    """The same of what a function makes of shared data: of several, of each.

    :param data: the data, or several
    :param make: the function
    """
    if not isinstance(data, Several):
        return make(data)
    return of_several([make(member) for member in data.members])


def has_rows(data: object) -> bool:
    """Whether there is a series in it, so that windows over it may be empty."""
    return any(isinstance(member, TimeSeries) for member in inputs_of(data))


def none_if_empty(bound: Callable[[Any, int, int], Any]) -> Callable[[Any, int, int], Any]:
    """How to bound views by windows, but that it gives None for a window that holds no row: of
    several series, of none of them.

    :param bound: bounds a view by a window
    """

    def bounded(view: Any, start: int, end: int) -> Any:
        cut = bound(view, start, end)
        return cut if holds_row(cut) else None

    return bounded


def holds_row(view: Any) -> bool:
    """Whether a view that was bounded by a window has a row in it: of several, one at least."""
    views: Sequence[Any] = (view,) if isinstance(view, TimeSeriesView) else view
    return any(len(v.in_window) > 0 for v in views if isinstance(v, TimeSeriesView))


def _is_shared(data: object) -> bool:
    return not isinstance(data, type) and callable(getattr(data, "read", None))


def _whole(view: Any, start: int, end: int) -> Any:
    return view
