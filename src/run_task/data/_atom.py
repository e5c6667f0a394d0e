"""An immutable value that is swapped for another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from run_task.data._access import InstantAccess
from run_task.errors import RunTaskError

T = TypeVar("T")


class Atom(Generic[T]):
    """An immutable value, such as a tuple or a frozen dataclass, that is swapped for another.

    ::

        limits = Atom((0.0, 100.0))
        limits.swap(lambda pair: (pair[0], pair[1] * 2))
        with limits.read() as (low, high):
            print(low, high)

    Reading never waits, and a reader keeps the value it was given. Nothing keeps others
    from changing a value that is mutable, so put such data in an :class:`~run_task.RwLock`.

    :param value: what is shared
    """

    __slots__ = ("_cell", "_swapping", "_writing")

    def __init__(self, value: T) -> None:
        self._cell: tuple[T] = (value,)  # another one for each write, also of the same value
        self._writing = threading.Lock()
        self._swapping: int | None = None  # the thread that is in a swap's function

    @property
    def value(self) -> T:
        """The value as it is now."""
        return self._cell[0]

    @property
    def generation(self) -> object:
        """Another object once the value has been swapped; the same one until then."""
        return self._cell

    def read(self, timeout: float | None = None) -> InstantAccess[T]:
        """Give the value as it is when the block is entered.

        :param timeout: of no effect, since reading never waits
        """
        return InstantAccess(self.view)

    def view(self) -> T:
        """The value as it is now: the same as reading, without a block."""
        return self._cell[0]

    def write(self, timeout: float | None = None) -> InstantAccess[Atom[T]]:
        """Give the Atom itself, so that shared data of any kind is written to in the same way.

        :param timeout: of no effect, since there is nothing to wait for
        """
        return InstantAccess(lambda: self)

    @property
    def version(self) -> int:
        """Always 0: the value is not changed in place."""
        return 0

    def __deepcopy__(self, memo: object) -> Atom[T]:
        return Atom(self._cell[0])  # it is immutable

    def reset(self, new: T) -> None:
        """Put a new value in the place of the old, whatever that is.

        It waits for a :meth:`swap` that is under way.

        :param new: the new value
        :raises RunTaskError: if it is called by the function of a swap of the same Atom
        """
        self._refuse_within_swap()
        with self._writing:
            self._cell = (new,)

    def swap(self, function: Callable[[T], T]) -> T:
        """Put what the function makes of the value in its place, with no other write in between.

        The function is called once; other writers wait for it, readers do not. If it raises, the
        value stays.

        :param function: takes the value and gives the new one
        :return: the new value
        :raises RunTaskError: if it is called by the function of a swap of the same Atom
        """
        self._refuse_within_swap()
        with self._writing:
            self._swapping = threading.get_ident()
            try:
                new = function(self._cell[0])
                self._cell = (new,)
            finally:
                self._swapping = None
        return new

    def _refuse_within_swap(self) -> None:
        if self._swapping == threading.get_ident():
            raise RunTaskError(
                f"the function given to swap() writes to the same {self!r}, which waits for that "
                f"function to end: let it return the new value"
            )

    def __repr__(self) -> str:
        return f"<Atom of {self._cell[0]!r}>"
