"""A sink of a live pipeline: a thread of its own writes, so no window waits for a disk."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from run_task.errors import ChannelClosed
from run_task.observe._format import brief
from run_task.pipeline._refusals import Refusals
from run_task.sinks._protocol import Result, Sink
from run_task.sync._channel import Receiver, Sender, channel
from run_task.sync._lifecycle import Lifecycle, Phase
from run_task.tasks._keyed import AnyDataSet

FLUSH_EVERY: Final = 1.0
"""After how many seconds at the latest what was written is flushed."""


class SinkThread:
    """Writes to a sink, flushes it every second, and closes it in the end.

    :param sink: where to
    :param pipeline: the pipeline's name
    :param name: what the thread is called
    :param capacity: how many DataSets may wait to be written
    :param refusals: counts the results that the sink cannot store
    :param failed: called with what else the sink raises; nothing is written after that
    """

    def __init__(
        self,
        sink: Sink,
        pipeline: str,
        name: str,
        capacity: int,
        refusals: Refusals,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._sink = sink
        self._pipeline = pipeline
        self._refusals = refusals
        self._failed = failed
        ends: tuple[Sender[Result], Receiver[Result]] = channel(capacity)
        self._sender, self._receiver = ends
        self._life = Lifecycle()
        self._writing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def write(self, stage: str, dataset: AnyDataSet) -> None:
        """Let a DataSet be written. Waits while too many wait already.

        :raises ChannelClosed: if the sink has failed
        """
        self._sender.send(Result.of(self._pipeline, stage, dataset))

    def __len__(self) -> int:
        """How many DataSets wait to be written."""
        return len(self._receiver)

    @property
    def lost(self) -> int:
        """How many DataSets were not written, as the sink failed, or was given up with them."""
        given_up = self._life.phase >= Phase.ABANDONED
        return self._receiver.dropped + (given_up and self._writing)

    def unbound(self) -> None:
        """Let no caller wait from now on."""
        self._sender.unbound()

    def close(self) -> None:
        """Let what waits be written, and the sink be closed. Returns at once, unless it was never
        started: then the sink is closed here."""
        self._sender.close()
        if self._thread.ident is None:
            try:
                self._sink.close()
            except BaseException as error:
                self._failed(error)

    def join(self, timeout: float) -> bool:
        """Wait until the sink is closed.

        :param timeout: how many seconds to wait
        :return: whether it is
        """
        if self._thread.ident is not None:  # it has been started
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def abandon(self) -> int:
        """Write nothing more, except what is being written. Returns how much is not written."""
        self._life.advance(Phase.ABANDONED)
        self._receiver.close()
        return self.lost

    def _run(self) -> None:
        try:
            try:
                self._write_all()
            finally:
                self._sink.close()
        except BaseException as error:
            self._life.advance(Phase.ABANDONED)
            self._receiver.close()  # what waits is dropped, counted and logged
            self._failed(error)

    def _write_all(self) -> None:
        sink, receive, write = self._sink, self._receiver.recv, self._refusals.write
        flush_at = math.inf  # by the monotonic clock; infinity: there is nothing to flush
        while True:
            now = time.monotonic()
            if now >= flush_at:
                sink.flush()
                flush_at = math.inf
            try:
                item = receive(flush_at - now)
            except TimeoutError:
                continue
            except ChannelClosed:
                sink.flush()
                return
            self._writing = True
            write(sink, item)
            self._writing = False
            if flush_at == math.inf:
                flush_at = time.monotonic() + FLUSH_EVERY

    def __repr__(self) -> str:
        return brief(self._sink)
