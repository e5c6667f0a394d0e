"""What every system runs: trivial tasks over one shared object."""

from __future__ import annotations

import time
from dataclasses import dataclass

FLOOR = "plain loop"


@dataclass
class Quote:
    """The shared object."""

    bid: float = 99.5
    ask: float = 100.5


class Mid:
    """A trivial task: two attributes read, one result made."""

    def __init__(self, number: int) -> None:
        self.name = f"task {number}"

    def run(self, data: Quote, start: int, end: int) -> float:
        return (data.bid + data.ask) / 2


def tasks(count: int) -> list[Mid]:
    return [Mid(number) for number in range(count)]


def plain_loop(count: int, seconds: float) -> float:
    """Microseconds a tick of a bare loop: no guard, no clock, no thread, no channel."""
    work, data = tasks(count), Quote()
    ticks, begun = 0, time.perf_counter()
    while (took := time.perf_counter() - begun) < seconds:
        for _ in range(max(1, 2000 // count)):
            results: dict[str, float] = {}
            for task in work:
                results[task.name] = task.run(data, ticks, ticks + 1)
            ticks += 1
    return took / ticks * 1e6
