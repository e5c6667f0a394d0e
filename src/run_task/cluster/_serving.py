"""The process of a shard: it does what it is sent, one request after another."""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
from queue import SimpleQueue

from run_task.cluster._link import ShardPlace
from run_task.cluster._messages import SIGN_EVERY, ShardRequest, SignOfLife
from run_task.cluster._shard import KeyShard, versions
from run_task.cluster._wire import receive, send
from run_task.executors.processes._parent import end_with_parent, end_with_socket
from run_task.observe._log import quiet


def main(descriptor: int, parent: int) -> None:
    """Serve the driver at the other end of a socket until it lets go.

    :param descriptor: of the socket
    :param parent: the number of the driver's process
    """
    os.set_inheritable(descriptor, False)  # what tasks start must not keep the socket open
    end_with_parent(parent)
    threading.Thread(target=end_with_socket, args=(descriptor,), daemon=True).start()
    quiet()
    with socket.socket(fileno=descriptor) as end:
        send(end, tuple(own_place()))
        requests: SimpleQueue[ShardRequest | None] = SimpleQueue()
        # So that its driver never waits for a shard that is at work before it can send more.
        threading.Thread(target=_read, args=(end, requests), daemon=True).start()
        one_at_a_time = threading.Lock()
        threading.Thread(target=_give_signs, args=(end, one_at_a_time), daemon=True).start()
        shard = KeyShard()
        while (request := requests.get()) is not None:
            reply = shard.handle(request)
            try:
                with one_at_a_time:
                    send(end, reply)
            except OSError:
                return  # the driver is gone


def _give_signs(end: socket.socket, one_at_a_time: threading.Lock) -> None:
    """Say that this process is there, whatever the shard is at."""
    while True:
        time.sleep(SIGN_EVERY)
        try:
            with one_at_a_time:
                send(end, SignOfLife())
        except OSError:
            return  # the driver is gone


def _read(end: socket.socket, requests: SimpleQueue[ShardRequest | None]) -> None:
    try:
        while True:
            requests.put(receive(end))
    except Exception:  # the driver is gone
        requests.put(None)


def own_place() -> ShardPlace:
    """Where this process runs."""
    return ShardPlace(platform.node(), os.getpid(), versions())
