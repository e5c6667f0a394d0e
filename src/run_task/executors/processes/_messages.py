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

    keyed: float | None
    """None: tasks are run without keys. Else they are run for each key, and this is for how many
    seconds one may run for one key."""


class Assignment(NamedTuple):
    """Run tasks."""

    window: tuple[int, int]
    """The window to run them for."""

    work: Any
    """Which tasks, by position; with keys a :class:`KeyedWork`, as a plain tuple."""

    data: Payload | None
    """What they read; None: what they read before. Its memory comes after that of the blocks."""

    blocks: Sequence[tuple[int, int]]
    """The numbers and sizes of shared blocks that are new to the worker."""

    gone: Sequence[int]
    """The numbers of those that no data lies in any more."""

    state_counts: Sequence[tuple[int, int]] = ()
    """Which of the tasks begin with another state than the one that the worker has of them, and how
    many pieces that has; 0: with their first. By key: how many pieces those have that come
    together, and then each that comes on its own."""

    states: Payload | None = None
    """The pieces of these states. Its memory comes last."""


Outcome: TypeAlias = tuple[int, bool, float, float, int, Any]
"""What came of a task, as a plain tuple, since a message holds no other: its position; whether it
raised, or gave what cannot be sent; when it began, in seconds by ``time.perf_counter``; how many
seconds it ran; how many pieces its result or exception has; and its result, if that has none."""


class Report(NamedTuple):
    """What came of an assignment. Before the first one comes an empty message: the worker is
    ready."""

    outcomes: Sequence[Outcome]
    """What came of each task."""

    payload: Payload | None
    """The pieces of all of them, if there are any."""


class KeyedWork(NamedTuple):
    """Run all tasks for some of the keys of a shard, each for one key after another.

    The jobs of a shard have positions: those of all tasks for its first key come first.
    """

    shard: int
    """Which shard: the keys of the buckets that belong to it."""

    shards: int
    """How many there are."""

    first: int
    """From which of its keys on, in their sorted order."""

    stop: int | None
    """Before which; None: to the last."""

    skipped: Sequence[int]
    """The positions of jobs that are not to be run."""


KeyedOutcome: TypeAlias = tuple[int, bool, int]
"""What came of a job that is not among the columns, as a plain tuple: its position; whether it
raised, or gave what cannot be sent; and how many pieces its result or exception has."""


class KeyedReport(NamedTuple):
    """What came of keyed work, or of the first part of it: whoever has been at it for a while
    reports what there is, and is told to go on."""

    stop: int
    """Before which of the shard's keys it has stopped."""

    seconds: Sequence[float]
    """How long each task ran for these keys together."""

    late: Sequence[tuple[int, float]]
    """The positions of jobs that ran for too long, and for how many seconds."""

    outcomes: Sequence[KeyedOutcome]
    """What came of jobs whose results are not among the columns."""

    failed: Sequence[tuple[int, int]]
    """The tasks that cannot be run, and how many pieces the exception has that says why."""

    columns: int
    """How many pieces the columns have: the results of each task, one for each key."""

    payload: Payload
    """The pieces of the columns, then of the outcomes, then of what cannot be run."""
