"""The messages that a runner and its worker processes send each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from run_task.executors.processes._wire import Payload


class Setup(NamedTuple):
    """The first message: what a worker is to know once. The memory of its progress comes first."""

    counts: Sequence[int]
    """How many pieces each task has, by position."""

    payload: Payload
    """The pieces of all of them: what they run, pickled."""

    excluded: Mapping[int, str]
    """The positions of tasks that are not to be loaded."""


class Assignment(NamedTuple):
    """Run these tasks."""

    window: tuple[int, int]
    """The window to run them for."""

    positions: Sequence[int]
    """Which tasks."""

    data: Payload | None
    """What they read; None: what they read before. Its memory comes after that of the blocks."""

    blocks: Sequence[tuple[int, int]]
    """The numbers and sizes of shared blocks that are new to the worker."""

    gone: Sequence[int]
    """The numbers of those that no data lies in any more."""

    state_counts: Sequence[tuple[int, int]] = ()
    """Which of the tasks begin with another state than the one that the worker has of them, and how
    many pieces that has; 0: with their first."""

    states: Payload | None = None
    """The pieces of these states. Its memory comes last."""


Outcome: TypeAlias = tuple[int, bool, float, float, int, Any]
"""What came of a task, as a plain tuple, since a message holds no other: its position; whether it
raised, or gave what cannot be sent; when it began, in seconds by ``time.perf_counter``; how many
seconds it ran; how many pieces its result or exception has; and its result, if that has none."""


class Report(NamedTuple):
    """What came of an assignment. The first one, of no task, says that the worker is ready."""

    outcomes: Sequence[Outcome]
    """What came of each task."""

    payload: Payload | None
    """The pieces of all of them, if there are any."""
