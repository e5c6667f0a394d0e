"""States that keep themselves as bytes of their own making."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

_OTHERWISE: Final = int
"""It has both methods, and they mean something else."""


class StateBytes:
    """A state on its way, of a type that has ``to_bytes()`` and the classmethod ``from_bytes()``.

    :param kind: the type of the state
    :param data: what it made of itself
    """

    __slots__ = ("_data", "_kind")

    def __init__(self, kind: type[Any], data: bytes) -> None:
        self._kind = kind
        self._data = data

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _state, (self._kind, self._data)


def to_send(state: Any) -> Any:
    """What is sent of a state: itself, or the bytes that it makes of itself. What is pickled of
    these is loaded as the state.

    :raises TypeError: if it makes anything else of itself
    :raises Exception: whatever its ``to_bytes`` raises
    """
    kind: type[Any] = type(state)  # pyright: ignore[reportUnknownVariableType]  of anything
    if not has_own_bytes(kind):
        return state
    data: object = state.to_bytes()
    if type(data) is not bytes:
        raise TypeError(f"to_bytes() of {kind.__qualname__} returned a {type(data).__qualname__}")
    return StateBytes(kind, data)


def has_own_bytes(kind: type[Any]) -> bool:
    """Whether states of a type make bytes of themselves, and are made of them."""
    return (
        not issubclass(kind, _OTHERWISE)
        and callable(getattr(kind, "to_bytes", None))
        and callable(getattr(kind, "from_bytes", None))
    )


def _state(kind: type[Any], data: bytes) -> Any:
    state: object = kind.from_bytes(data)
    if not isinstance(state, kind):
        raise TypeError(
            f"from_bytes() of {kind.__qualname__} returned a {type(state).__qualname__}"
        )
    return state
