"""Tasks with a state, for tests: in a module of their own, which worker processes import."""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from run_task import StatefulTask, TimeSeriesView, task


class Ema(NamedTuple):
    value: float = 0.0
    windows: int = 0


@task(state=Ema)
def ema(view: TimeSeriesView, start: int, end: int, state: Ema) -> tuple[float, Ema]:
    """Goes on by half; fails where a price is below zero."""
    prices: list[float] = view.in_window["price"].tolist()
    if prices and min(prices) < 0:
        raise ValueError("a price below zero")
    latest = sum(prices)
    value = latest if state.windows == 0 else (state.value + latest) / 2
    return value, Ema(value, state.windows + 1)


@task(state=int)
def windows(view: Any, start: int, end: int, state: int) -> tuple[int, int]:
    return state + 1, state + 1


@task(state=lambda: "as it was")
def same(view: Any, start: int, end: int, state: str) -> tuple[str, str]:
    return state, state


@dataclass
class Seen:
    prices: list[float] = field(default_factory=list[float])


@task(state=Seen, copy=copy.deepcopy, version=2)
def seen(view: TimeSeriesView, start: int, end: int, state: Seen) -> tuple[list[float], Seen]:
    """Changes its state in place, and then may fail."""
    prices: list[float] = view.in_window["price"].tolist()
    state.prices += prices
    if any(price < 0 for price in prices):
        raise ValueError("a price below zero")
    return list(state.prices), state


def nothing_seen() -> Seen:
    return Seen()


@task(state=nothing_seen)  # what it makes is known once it has made it
def careless(view: TimeSeriesView, start: int, end: int, state: Seen) -> tuple[int, Seen]:
    return 1, state


@task(state=tuple[Any, ...])
def gathering(
    view: TimeSeriesView, start: int, end: int, state: tuple[Any, ...]
) -> tuple[int, tuple[Any, ...]]:
    """Its first state is a value, and the next one holds what is none."""
    return start, (view.in_window["price"].tolist(),)


@task(state=int)
def forgetful(view: Any, start: int, end: int, state: int) -> Any:
    return state


@task(state=int)
def slow_once(view: Any, start: int, end: int, state: int) -> tuple[int, int]:
    """Takes too long in the second window."""
    if start == 10:
        time.sleep(0.5)
    return state + 1, state + 1


class Locked:
    """A state that cannot be sent to another process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Locked)

    def __hash__(self) -> int:
        return 1


@task(state=Locked)
def locked(view: Any, start: int, end: int, state: Locked) -> tuple[int, Locked]:
    return 1, Locked()


class Own:
    """A state that keeps itself as bytes of its own making, and cannot be pickled.

    :param count: what it counts
    """

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.lock = threading.Lock()

    def copy(self) -> Own:
        return Own(self.count)

    def to_bytes(self) -> bytes:
        return str(self.count).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Own:
        count = int(data)
        if count == 13:
            raise ValueError("13 cannot be loaded")
        return cls(count)


@task(state=Own, copy=Own.copy)
def own(view: Any, start: int, end: int, state: Own) -> tuple[int, Own]:
    state.count += 1
    if view.in_window["price"].min(initial=0.0) < 0:
        raise ValueError("a price below zero")
    return state.count, state


@task
def waits(view: Any, start: int, end: int) -> int:
    time.sleep(0.03)
    return 1


def first() -> str | None:
    return "first"


@task(state=first)
def none_once(
    view: TimeSeriesView, start: int, end: int, state: str | None
) -> tuple[str, str | None]:
    """Has None as its state from the first window on; fails where a price is below zero."""
    if view.in_window["price"].min() < 0:
        raise ValueError("a price below zero")
    return state or "none", None


ALL: tuple[StatefulTask[Any, Any, Any], ...] = (ema, windows, same, seen)
