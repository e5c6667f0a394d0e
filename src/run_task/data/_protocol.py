"""What a runner asks of its data: one consistent view at a time."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TypeVar, runtime_checkable

from run_task.time._interval import TimeUnit

I_co = TypeVar("I_co", covariant=True)


class Access(Protocol[I_co]):
    """A block that gives the data, for ``with`` and for ``async with``.

    What it gives on entering is the value of an ``RwLock`` or an ``Atom``, or the view of a
    ``TimeSeries``.
    """

    def __enter__(self) -> I_co: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    async def __aenter__(self) -> I_co: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class Shared(Protocol[I_co]):
    """Data that tasks read while others change it."""

    def read(self, timeout: float | None = None) -> Access[I_co]:
        """Give a view of the data that stays as it is until the ``with`` block ends.

        The block may be entered in one thread and left in another: that is how a runner goes on
        when a task hangs.

        :param timeout: how many seconds to wait for it; None: forever
        :raises LockTimeout: on entering the block, if it could not be had in time
        """
        ...


class Writable(Protocol[I_co]):
    """Shared data that somebody changes: what a pipeline's sources and stages write to."""

    def write(self, timeout: float | None = None) -> Access[I_co]:
        """Give what is changed: the value of a lock, alone; or the data itself, if it
        needs no lock.

        :param timeout: how many seconds to wait for it; None: forever
        :raises LockTimeout: on entering the block, if it could not be had in time
        """
        ...


@runtime_checkable
class Viewable(Protocol[I_co]):
    """Shared data whose views stay as they are for as long as they are kept, and make no
    writer wait: so one may be taken for a window that begins later."""

    def view(self) -> I_co:
        """The data as it is now."""
        ...


@runtime_checkable
class Generational(Viewable[I_co], Protocol[I_co]):
    """Viewable data that tells whether it has changed since it was last looked at: so that views
    of several are known to be of one moment."""

    @property
    def generation(self) -> object:
        """Another object after each change, and the same one as long as there is none."""
        ...


@runtime_checkable
class Windowed(Protocol):
    """Shared data whose rows have times, so that a view of it can end with a window."""

    def windowed(self, unit: TimeUnit, /) -> Callable[[Any, int, int], Any]:
        """How to bound its views by windows whose times are in a unit.

        :param unit: the unit of the windows' starts and ends
        :return: a function of what reading gave, and the start and the end of a window. It gives
            what the tasks of the window see: nothing that comes after its end
        """
        ...


def window_bound(data: object, unit: TimeUnit) -> Callable[[Any, int, int], Any] | None:
    """How views of shared data are bounded by windows, as :meth:`Windowed.windowed` gives it.

    :param data: the shared data
    :param unit: the unit of the windows' starts and ends
    :return: the function; None if this data has nothing that lies before or after a window
    """
    return data.windowed(unit) if isinstance(data, Windowed) else None


@runtime_checkable
class Versioned(Protocol):
    """Shared data that numbers its states, so that none is sent to a process twice."""

    @property
    def version(self) -> int:
        """Another number once the object that is read was changed in place. Not while it is."""
        ...


@runtime_checkable
class Relocatable(Protocol):
    """Shared data that can live in memory which other processes map."""

    def relocate(self, allocate: Callable[[int], Any], /) -> None:
        """Move there, and stay there.

        :param allocate: makes a block of memory of so many bytes
        """
        ...
