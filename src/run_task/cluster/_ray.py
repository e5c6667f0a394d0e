"""Shards as actors of Ray, on any of its nodes. Nothing but this imports Ray."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from math import inf
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np

from run_task._extras import need
from run_task.cluster._encoding import decoded, encoded
from run_task.cluster._link import MissedSigns, ShardLost, ShardPlace
from run_task.cluster._messages import SIGN_EVERY, ShardReply, ShardRequest
from run_task.cluster._serving import own_place
from run_task.cluster._shard import KeyShard
from run_task.cluster._windows import LOOK
from run_task.errors import ConfigError, RunTaskError, described
from run_task.observe._log import filtered, quiet

_LOCAL: Final = "local"

_Packed: TypeAlias = bytes | tuple[Any, ...]
"""A pickle, or one with the arrays of bytes that belong to it."""

_HELLO: Final = 60.0
"""How many seconds an actor has to be there: Ray waits without end for a node with room for it."""

_HEARD: Final = 5.0
"""How many seconds the machine of an address has to accept a connection, and to answer."""


MOST_SILENT: Final = 300.0
"""After how many seconds without a sign of life an actor is killed. A task that holds Python's lock
keeps it from giving one, and whether it works cannot be seen from another machine."""

_ASKED_AFTER: Final = 5.0
"""After how many seconds of a call the actor is asked for a sign of life."""

_SIGNS: Final = "signs"
"""The group of calls that are done beside others."""


class ShardActor:
    """A shard, as Ray runs it: one call after another, in order."""

    def __init__(self, path: list[str]) -> None:
        # What the driver imports from a folder of its own is there on a machine that it shares.
        sys.path += [folder for folder in path if folder not in sys.path]
        quiet()
        self._shard = KeyShard()

    def place(self) -> ShardPlace:
        """Where it runs."""
        return own_place()

    def is_there(self) -> None:
        """Answer, also while it is at work: by a thread of its own."""

    def handle(self, data: bytes, *buffers: Any) -> _Packed:
        """Do what a request asks for."""
        request: ShardRequest = unpacked((data, *buffers))
        return packed(self._shard.handle(request))


def packed(message: Any) -> _Packed:
    """A message as Ray is given it: bytes, which it takes as they are, and beside these what is
    large, which it puts into its store, to be read there without a copy. Of anything else, it looks
    at each part, and pickles it once more."""
    data, beside = encoded(message)
    if not beside:
        return data
    return data, *(np.frombuffer(buffer.raw(), np.uint8) for buffer in beside)


def unpacked(given: _Packed) -> Any:
    """The message."""
    if isinstance(given, bytes):
        return decoded(given, ())
    data, *beside = given
    return decoded(data, beside)


class RayTransport:
    """Starts shards on a cluster of Ray.

    A program that has connected to one already keeps its connection.

    :param address: of the cluster, as :meth:`Pipeline.run_sharded` takes it
    :raises ConfigError: if Ray is not installed
    """

    def __init__(self, address: str) -> None:
        self._ray = need("ray", "ray")
        self._address = address
        self._actor: Any = None
        self._is_own = False  # the cluster is that of this process, to which no node is added
        self._watch = _RayWatch()

    def open(self, is_unwanted: Callable[[], bool]) -> bool:
        """Connect to the cluster.

        :param is_unwanted: asked again and again: whether nobody wants it any more
        :return: whether it is connected to; or else nobody wants it
        :raises ConfigError: if there is none
        """
        connection = _RayConnection.for_user(self, self._ray, self._address)
        if connection is not None:
            try:
                while not connection.is_there(LOOK):
                    if is_unwanted():
                        return False
            except (Exception, SystemExit) as error:
                raise _no_cluster(self._address, error) from error
            self._is_own = self._address == _LOCAL
        # What runs in it is started again by its driver, which knows what it is to be told.
        self._ray.method(concurrency_group=_SIGNS)(ShardActor.is_there)  # which notes that there
        self._actor = self._ray.remote(
            num_cpus=1,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            concurrency_groups={_SIGNS: 1},
        )(ShardActor)
        self._watch.begin()
        return True

    def start(self, number: int, given_up: threading.Event) -> RayLink:
        """Start a shard, on whichever node has room for it.

        :param number: which of all it is
        :param given_up: set: nobody waits for it any more
        :raises ShardLost: if it, or its node, dies before it is there
        :raises RunTaskError: if no node has room, it cannot be there, or nobody waits
        """
        if self._is_own and 0 < (cores := self._cores()) <= number:
            raise ConfigError(
                f"shard {number} finds no node: each takes a core, and the cluster of this run has "
                f"{cores:g}: give {cores:.0f} shards at most, or run them in processes, without Ray"
            )
        actor = self._actor.remote(sys.path)
        try:
            place = self._place(number, actor.place.remote(), given_up)
        except BaseException:
            self._ray.kill(actor)
            raise
        return RayLink(self._ray, actor, place, self._watch)

    def _place(self, number: int, asked: Any, given_up: threading.Event) -> ShardPlace:
        until = time.monotonic() + _HELLO
        while True:
            try:
                place: ShardPlace = self._ray.get(asked, timeout=LOOK)
                return place
            except self._ray.exceptions.GetTimeoutError as error:
                if given_up.is_set():
                    raise RunTaskError(f"nobody waits for shard {number} any more") from error
                if time.monotonic() > until:
                    raise ConfigError(
                        f"shard {number} found no node within {_HELLO:g} s: each takes a core, and "
                        f"the cluster has {self._cores():g}, of which others may take some: add "
                        f"nodes, or give fewer shards"
                    ) from error
            except self._ray.exceptions.RayError as error:
                if getattr(error, "actor_init_failed", False):
                    raise RunTaskError(
                        f"shard {number} cannot be made there: {_last_line(error)}: install on "
                        f"each node what this process has"
                    ) from error
                raise ShardLost(_in_short(error)) from error

    def _cores(self) -> float:
        resources: Mapping[str, float] = self._ray.cluster_resources()
        return resources.get("CPU", 0.0)

    def close(self) -> None:
        """Let go of the cluster, if it was connected to for this run, and no other has it."""
        self._watch.close()
        _RayConnection.leave(self)


class _RayConnection:
    """The connection of this process to a cluster of Ray, by a thread that lives as long.

    What Ray starts for a cluster of this run ends with the thread that has started it; nothing can
    break off Ray while it connects, so that who waits for it must be another thread; and in another
    than the main one, Ray leaves it to the program what SIGTERM does.

    There is one at most, which all runs of the process share.

    :param ray: Ray
    :param address: of the cluster
    :param before: the thread of the one before, while that ends
    """

    def __init__(self, ray: Any, address: str, before: threading.Thread | None) -> None:
        self._ray = ray
        self._address = address
        self._before = before
        self._connected: Future[None] = Future()
        self._let_go = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="run-task Ray", daemon=True)
        self._users: set[object] = set()

    _mutex: ClassVar = threading.Lock()
    _there: ClassVar[_RayConnection | None] = None
    _last: ClassVar[threading.Thread | None] = None  # which may still be about to end

    @classmethod
    def for_user(cls, user: object, ray: Any, address: str) -> _RayConnection | None:
        """That of this process, which begins to connect unless it has before. None: the program
        itself has connected.

        :param user: who is to leave it, also if this is broken off by Ctrl-C
        :raises ConfigError: if nothing listens there, or it is that to another cluster
        """
        with cls._mutex:
            there = cls._there
            if there is None:
                before = cls._last if cls._last is not None and cls._last.is_alive() else None
                if before is None and ray.is_initialized():
                    return None
                _refuse_no_server(address)
                there = cls._there = cls(ray, address, before)
                there._users.add(user)
                cls._last = there._thread
                there._thread.start()
                return there
            if there._address != address:
                raise ConfigError(
                    f"address={address!r}: another pipeline of this process runs at "
                    f"{there._address!r}, and Ray connects a process to one cluster at a time: "
                    f"give the same address, or let this one run in a process of its own"
                )
            there._users.add(user)
            return there

    def _keep(self) -> None:
        if self._before is not None:
            self._before.join()
        try:
            with filtered("ray._private.worker", _is_worth_saying):
                self._ray.init(
                    address=self._address,
                    log_to_driver=False,
                    configure_logging=False,
                    include_dashboard=None if self._address != _LOCAL else False,
                )
        except BaseException as error:
            self._connected.set_exception(error)
            return
        self._connected.set_result(None)
        self._let_go.wait()
        self._ray.shutdown()

    def is_there(self, timeout: float) -> bool:
        """Wait for it for so many seconds. Returns whether it is there.

        :raises BaseException: what Ray raises if there is no cluster
        """
        try:
            self._connected.result(timeout)
        except TimeoutError:
            if self._connected.done():
                raise
            return False
        return True

    @classmethod
    def leave(cls, user: object) -> None:
        """A run needs it no more, if it did. The last one ends it: at once, or as soon as it is
        there, which is not waited for."""
        with cls._mutex:
            there = cls._there
            if there is None or user not in there._users:
                return
            there._users.discard(user)
            if there._users:
                return
            cls._there = None
            there._let_go.set()
            if there._connected.done():
                there._thread.join()


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """All but that Ray sets no handler for SIGTERM in this thread."""
    return not record.getMessage().startswith("SIGTERM handler is not set")


def _refuse_no_server(address: str) -> None:
    """Ray itself waits for minutes where nothing listens, and for long where somebody else does.

    :raises ConfigError: if no server of Ray listens at an address with a port
    """
    host, colon, port = address.removeprefix("ray://").partition("/")[0].rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _HEARD) as end:
            answer = _answer_to_http2(end)
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error
    if answer is None or answer[_FRAME_TYPE] == _SETTINGS:
        return
    what = f"answers {answer!r}" if answer else "ends the connection"
    raise _no_cluster(address, ConnectionError(f"what listens there {what}, as no Ray does"))


def _answer_to_http2(end: socket.socket) -> bytes | None:
    """The first bytes that a server answers who is greeted in HTTP/2, as gRPC does, by which Ray
    speaks. None: it is not known what it would."""
    if os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true"):
        return None
    answer = b""
    try:
        end.sendall(_HTTP2)
        while len(answer) < _FRAME_HEAD and (more := end.recv(_FRAME_HEAD - len(answer))):
            answer += more
    except TimeoutError:
        return answer or None  # one that is busy may answer later, and Ray waits for it
    except ConnectionError:
        pass
    return answer


_HTTP2: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a connection begins, with settings of no length (RFC 9113, 3.4)."""

_FRAME_HEAD: Final = 9
_FRAME_TYPE: Final = slice(3, 4)
_SETTINGS: Final = b"\x04"


def _no_cluster(address: str, error: BaseException) -> ConfigError:
    if isinstance(error, RuntimeError) and "ersion" in str(error):  # of Ray, or of Python
        said = " ".join(str(error).split())
        return ConfigError(
            f"address={address!r}: {said}: install the same on each node and where the driver runs"
        )
    return ConfigError(
        f"address={address!r}: there is no cluster of Ray ({described(error)}): start one by "
        f"'ray start --head', give the address of one that runs, or 'local' for one that lives as "
        f"long as this run"
    )


class _RayWatch:
    """A thread that looks at actors every second: whether they still give signs of life."""

    def __init__(self) -> None:
        self._links: set[RayLink] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="run-task Ray watch", daemon=True)

    def begin(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End it. Also if it was not begun."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def add(self, link: RayLink) -> None:
        """Look at a shard."""
        self._links.add(link)

    def remove(self, link: RayLink) -> None:
        """Look at it no more."""
        self._links.discard(link)

    def _watch(self) -> None:
        while not self._ended.wait(SIGN_EVERY):
            for link in list(self._links):
                link.look()


class RayLink:
    """A shard that is an actor.

    :param ray: Ray
    :param actor: the actor
    :param place: where it runs
    :param watch: what looks at it
    """

    def __init__(self, ray: Any, actor: Any, place: ShardPlace, watch: _RayWatch) -> None:
        self._ray = ray
        self._actor = actor
        self.place: ShardPlace = ShardPlace(*place)
        self._calls = itertools.count()
        self._out: dict[int, float] = {}  # since when, by the monotonic clock
        self._sign: Future[Any] | None = None  # that it was asked for
        self._silent = 0.0  # for how many seconds it has not given it
        self._why: str | None = None
        self._watch = watch
        watch.add(self)

    @property
    def missed_signs(self) -> MissedSigns:
        """That it has not given the one that it was asked for."""
        return MissedSigns(self._silent, f"killed after {MOST_SILENT:g} s without")

    @property
    def ended(self) -> ShardLost | None:
        """Nothing: that an actor is gone is told to who calls it."""
        return None

    def call(self, request: ShardRequest) -> Future[ShardReply]:
        """Ask it to do something. Returns at once; what is large goes through Ray's store."""
        answer: Future[ShardReply] = Future()
        message = packed(request)
        given = (message,) if isinstance(message, bytes) else message
        try:
            asked: Future[Any] = self._actor.handle.remote(*given).future()
        except Exception as error:
            answer.set_exception(self._lost(error))
            return answer
        number = next(self._calls)
        self._out[number] = time.monotonic()

        def settle(asked: Future[Any]) -> None:
            self._out.pop(number, None)
            error = asked.exception()
            if error is None:
                answer.set_result(unpacked(asked.result()))
            elif isinstance(error, self._ray.exceptions.RayError):
                answer.set_exception(self._lost(error))
            else:
                answer.set_exception(error)

        asked.add_done_callback(settle)
        return answer

    def _lost(self, error: BaseException) -> ShardLost:
        return ShardLost(_in_short(error) if self._why is None else self._why)

    def look(self) -> None:
        """Ask it for a sign of life while a call takes seconds, and kill it if it gives none: it
        was stopped, or hangs."""
        if time.monotonic() - min(list(self._out.values()), default=inf) < _ASKED_AFTER:
            self._sign, self._silent = None, 0.0
        elif self._sign is None or self._sign.done():
            self._silent = 0.0
            with suppress(Exception):  # it is gone, which the call tells
                self._sign = self._actor.is_there.remote().future()
        else:
            self._silent += SIGN_EVERY
            if self._silent >= MOST_SILENT:
                process = f"its process {self.place.process} on {self.place.node}"
                self._why = f"{process} has given no sign of life for {self._silent:g} s"
                self.end()

    def end(self) -> None:
        """End it."""
        self._watch.remove(self)
        if self._ray.is_initialized():
            self._ray.kill(self._actor)


def _in_short(error: BaseException) -> str:
    """What Ray says, without what it guesses, and without its numbers."""
    lines = str(error).splitlines() or [type(error).__name__]
    said = next((line for line in lines[1:] if line and not line[0].isspace()), lines[0])
    return said.partition(" Worker exit detail:")[0].partition(" Some common causes")[0]


def _last_line(error: BaseException) -> str:
    """What was raised there, of what Ray tells of it."""
    return str(error).rstrip().rpartition("\n")[2]
