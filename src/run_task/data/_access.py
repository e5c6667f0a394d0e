"""The block of data that needs no lock: it gives the data, and holds nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class InstantAccess(Generic[T_co]):
    """A ``with`` or ``async with`` block that gives what a function returns when it is entered.

    :param give: the function
    """

    __slots__ = ("_give",)

    def __init__(self, give: Callable[[], T_co]) -> None:
        self._give = give

    def __enter__(self) -> T_co:
        return self._give()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        pass

    async def __aenter__(self) -> T_co:
        return self._give()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        pass
