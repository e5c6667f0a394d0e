"""How a driver reaches a shard: one small interface, whatever is in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from run_task.cluster._messages import ShardReply, ShardRequest
from run_task.errors import RunTaskError


class ShardLost(RunTaskError):
    """A shard is gone, with all that it had."""


class ShardPlace(NamedTuple):
    """Where a shard runs."""

    node: str
    """The machine."""

    process: int
    """The number of its process there."""

    versions: Mapping[str, str]
    """As of :func:`~run_task.cluster._shard.versions`."""


class MissedSigns(NamedTuple):
    """Signs of life that a shard was to give, and has not."""

    seconds: float
    """For how long; 0: it gives them."""

    then: str
    """What becomes of it if it goes on so."""


class Link(Protocol):
    """The way to a shard. What it is asked is done in order."""

    @property
    def place(self) -> ShardPlace:
        """Where the shard runs."""
        ...

    @property
    def missed_signs(self) -> MissedSigns:
        """Those of the last seconds. From any thread."""
        ...

    @property
    def ended(self) -> ShardLost | None:
        """That the shard is gone, where this is known without a call. From any thread."""
        ...

    def call(self, request: ShardRequest) -> Future[ShardReply]:
        """Ask it to do something. Returns at once.

        :return: what it answers; it raises ShardLost if the shard is gone by then
        """
        ...

    def end(self) -> None:
        """End the shard, whatever it is at. Without effect on one that is gone."""
        ...


class Transport(Protocol):
    """Where shards can be started."""

    def open(self, is_unwanted: Callable[[], bool]) -> bool:
        """Make ready what shards have in common.

        :param is_unwanted: asked again and again: whether nobody wants it any more
        :return: whether it is ready; or else nobody wants it
        :raises ConfigError: if there is no such place
        """
        ...

    def start(self, number: int, given_up: threading.Event) -> Link:
        """Start a shard that has nothing yet. From any thread, several at a time.

        :param number: which of all it is
        :param given_up: set: nobody waits for it any more
        :raises ShardLost: if it went before it was there: another one may be started
        :raises Exception: if it cannot be started, or nobody waits
        """
        ...

    def close(self) -> None:
        """Let go of what shards have in common, once all are ended. Also if it was not opened."""
        ...
