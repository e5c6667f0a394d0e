"""DataSets on their way to those who have asked for a stream of them.

A pipeline never waits for any of these: what a client does not take in time is dropped and counted,
the oldest first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from run_task.errors import SinkError
from run_task.observe._format import shown
from run_task.serve._told import key_told
from run_task.sinks._plain_json import as_plain
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet

_MOST_WAITING: Final = 1024
"""How many DataSets may wait to be told to clients, and how many messages for one of these."""

_MOST_BYTES: Final = 4 << 20
"""How many bytes may wait for a client, unless it is one message alone. Clients share them."""

_PLAIN: Final[frozenset[type]] = frozenset({float, int, str, bool, type(None)})
"""What is encoded as it is."""


class StreamClient:
    """What one who has asked for a stream is to be told.

    :param pipeline: of which pipeline
    :param stage: of which stage; None: of all
    :param key: of which key; None: of all
    """

    def __init__(self, pipeline: str, stage: str | None, key: str | None) -> None:
        self.pipeline = pipeline
        self.stage = stage
        self.key = key
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._some = asyncio.Event()

    def push(self, message: bytes) -> None:
        """Let it have a message, in the place of the oldest ones if there is no room."""
        waiting = self._waiting
        waiting.append(message)
        self._bytes += len(message)
        while len(waiting) > 1 and (len(waiting) > _MOST_WAITING or self._bytes > _MOST_BYTES):
            self._bytes -= len(waiting.popleft())
            self._dropped += 1
        self._some.set()

    def lose(self, count: int) -> None:
        """Messages were lost before they came here."""
        self._dropped += count
        self._some.set()

    async def next(self, timeout: float) -> tuple[int, bytes | None]:
        """The next message, and how many were dropped before it.

        :param timeout: for how many seconds it is waited for
        :return: None: none has come
        """
        if not self._waiting and not self._dropped:
            try:
                async with asyncio.timeout(timeout):
                    await self._some.wait()
            except TimeoutError:
                return 0, None
        self._some.clear()
        dropped, self._dropped = self._dropped, 0
        if not self._waiting:
            return dropped, None
        message = self._waiting.popleft()
        self._bytes -= len(message)
        return dropped, message


class Hub:
    """Takes DataSets from the threads that write to sinks, and lets clients have them, in an event
    loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clients: set[StreamClient] = set()
        self._offered: deque[tuple[str, str, AnyDataSet]] = deque(maxlen=_MOST_WAITING)
        self._offers = 0
        self._taken = 0
        self._woken = False

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let clients have what comes from now on.

        :param loop: where they are served
        """
        self._loop = loop

    def add(self, client: StreamClient) -> None:
        """One more client. In the event loop, as all below."""
        self._clients.add(client)

    def remove(self, client: StreamClient) -> None:
        """It is gone."""
        self._clients.discard(client)

    def wake(self) -> None:
        """Let all clients look whether their stream is to end."""
        for client in self._clients:
            client.lose(0)

    def taker(self, pipeline: str) -> Callable[[str, AnyDataSet], None]:
        """A function that takes the DataSets of a pipeline. It returns at once.

        :param pipeline: its name
        """

        def take(stage: str, dataset: AnyDataSet) -> None:
            loop = self._loop
            if loop is None or not self._clients:
                return
            self._offered.append((pipeline, stage, dataset))  # the oldest goes if it is full
            self._offers += 1
            if not self._woken:
                self._woken = True
                try:
                    loop.call_soon_threadsafe(self._distribute)
                except RuntimeError:  # it is closed, and nobody is there
                    self._loop = None

        return take

    def _distribute(self) -> None:
        self._woken = False
        while True:
            try:
                pipeline, stage, dataset = self._offered.popleft()
            except IndexError:
                break
            self._taken += 1
            self._tell(pipeline, stage, dataset)
        if not self._woken and (lost := self._offers - self._taken) > 0:
            self._taken += lost
            for client in self._clients:
                client.lose(lost)

    def _tell(self, pipeline: str, stage: str, dataset: AnyDataSet) -> None:
        encoded: dict[str | None, bytes | None] = {}  # by key
        for client in self._clients:
            if client.pipeline != pipeline or client.stage not in (None, stage):
                continue
            if client.key not in encoded:
                encoded[client.key] = dataset_as_json(pipeline, stage, dataset, client.key)
            message = encoded[client.key]
            if message is not None:
                client.push(message)


def dataset_as_json(
    pipeline: str, stage: str, dataset: AnyDataSet, key: str | None = None
) -> bytes | None:
    """A DataSet in the form that webhooks have it in; a result that has no form in JSON is told as
    a text.

    :param key: of which key; None: of all
    :return: None: it has no such key
    """
    unit = None if dataset.interval is None else dataset.interval.unit.value
    told: dict[str, Any] = {
        "pipeline": pipeline,
        "stage": stage,
        "start": dataset.window.start,
        "end": dataset.window.end,
        "unit": unit,
    }
    errors = list(dataset.errors.values())
    if isinstance(dataset, KeyedDataSet):
        if key is None:
            told["keys"] = [
                {"key": key_told(each), "results": _results(values)}
                for each, values in dataset.rows()
            ]
        else:
            found = next((each for each in dataset.keys_of_rows if str(each) == key), None)
            if found is None:
                return None
            told["keys"] = [{"key": key_told(found), "results": _results(dataset.of_key(found))}]
            errors = [error for error in errors if error.key in (None, found)]
    elif key is not None:
        return None
    else:
        told["results"] = _results(dataset)
    told["errors"] = [
        {"task": error.task, "key": key_told(error.key), "error": str(error)} for error in errors
    ]
    return msgspec.json.encode(told)


def _results(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if _PLAIN.issuperset(map(type, values.values())):
        return dict(values)
    return {name: plain(value) for name, value in values.items()}


def plain(value: Any) -> Any:
    """A result as plain JSON has it; as a text, if it has no form there."""
    if type(value) in _PLAIN:
        return value
    try:
        return as_plain(value, "")
    except SinkError:
        return shown(value)
