"""Tasks divided into shares, so that all workers have about as much to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SHARE: Final = 0.001
"""From how many seconds on a share is cut smaller: to hand one over costs a tenth of that."""

CHEAP: Final = 50e-6
"""Tasks that take fewer seconds together are for one worker alone: to wake another, and to hear of
it, takes the runner longer than half of them."""

SHARES_EACH: Final = 8
"""How many shares a worker has at most. One that is done takes the next, and none waits long."""


def balanced(costs: Sequence[float], workers: int) -> list[list[int]]:
    """Cut tasks into shares of like cost, the costliest share first.

    A tick of cheap tasks has one share a worker. One of costly tasks has more, down to a task each,
    so that a worker that is done with its own takes over from one whose tasks took longer than
    expected.

    :param costs: what each task is expected to take, in seconds, by position
    :param workers: how many work
    :return: positions, each once; no share is empty
    """
    each = min(max(int(sum(costs) / workers / SHARE), 1), SHARES_EACH)
    count = min(workers * each, len(costs))
    cut: list[list[int]] = [[] for _ in range(count)]
    loads = [0.0] * count
    # The costliest first, each to the share that costs least so far: no more than a third over the
    # best (Graham 1969).
    for position in sorted(range(len(costs)), key=lambda i: -costs[i]):
        least = min(range(count), key=lambda i: (loads[i], len(cut[i])))
        cut[least].append(position)
        loads[least] += costs[position]
    return [cut[i] for i in sorted(range(count), key=lambda i: -loads[i]) if cut[i]]
