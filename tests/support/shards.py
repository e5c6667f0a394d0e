"""Shards in this process, so that a test starts none: what is sent to them is pickled as elsewhere.

They can be killed, slowed down and kept from coming back."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from unittest import mock

from run_task.cluster._link import MissedSigns, ShardLost, ShardPlace
from run_task.cluster._messages import ShardReply, ShardRequest
from run_task.cluster._shard import KeyShard, versions

REFUSED = RuntimeError("there is no place for it")


class LocalLink:
    """A shard in this process.

    :param number: which it is
    """

    def __init__(self, number: int, place: ShardPlace, transport: LocalTransport) -> None:
        self.number = number
        self.place = place
        self._transport = transport
        self.shard: KeyShard | None = KeyShard()
        self.asked = 0
        self.missed_signs: MissedSigns = MissedSigns(0.0, "")
        self.ended: ShardLost | None = None

    def call(self, request: ShardRequest) -> Future[ShardReply]:
        future: Future[ShardReply] = Future()
        if self._transport.on_call is not None:
            self._transport.on_call(self)
        shard = self.shard
        if shard is None:
            future.set_exception(ShardLost("it was killed"))
            return future
        self.asked += request.setup is None or request.run is not None  # and not to make ready
        sent = pickle.dumps(request, 5)
        reply = shard.handle(pickle.loads(sent))
        if self._transport.on_answer is not None:
            self._transport.on_answer(self)
        if self.shard is None:  # while it was at work
            future.set_exception(ShardLost("it was killed"))
        else:
            future.set_result(pickle.loads(pickle.dumps(reply, 5)))
        return future

    def end(self) -> None:
        if self.shard is not None:
            self.shard.close()
            self.shard = None

    kill = end


class LocalTransport:
    """Starts shards in this process.

    :param on_call: called before each request, with the link
    :param on_answer: called when it has been done, before that is known
    """

    def __init__(
        self,
        on_call: Callable[[LocalLink], object] | None = None,
        on_answer: Callable[[LocalLink], object] | None = None,
    ) -> None:
        self.links: list[LocalLink] = []
        self.refuses = False
        self.versions: Mapping[str, str] = versions()
        self.on_call = on_call
        self.on_answer = on_answer
        self.closed = 0

    def open(self, is_unwanted: Callable[[], bool]) -> bool:
        return True

    def start(self, number: int, given_up: threading.Event) -> Any:
        if self.refuses:
            raise REFUSED
        link = LocalLink(number, ShardPlace(f"node-{number}", os.getpid(), self.versions), self)
        self.links.append(link)
        return link

    def close(self) -> None:
        self.closed += 1


@contextmanager
def local_shards(transport: LocalTransport | None = None) -> Generator[LocalTransport]:
    """A block in which shards are in this process."""
    made = transport or LocalTransport()
    with mock.patch("run_task.pipeline._sharding.transport_for", return_value=made):
        yield made
