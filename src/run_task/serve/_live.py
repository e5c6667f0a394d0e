"""How pipelines do, as it changes: what the page shows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import msgspec

from run_task.serve._events import BEAT, NOTHING_NEW, Event
from run_task.serve._watched import ToldPart, WatchedPipeline

_EVERY: Final = 0.25
"""How many seconds lie between two states that are told, at least."""


class LiveFeed:
    """Tells how a pipeline does, each client what has changed since it was told last.

    :param watched: the pipeline
    """

    def __init__(self, watched: WatchedPipeline) -> None:
        self._watched = watched
        self._made: dict[int, bytes] = {}  # by the version that a client knows
        self._version = -1

    def state(self, since: int = 0) -> bytes:
        """How it does, as JSON.

        :param since: the version that is known; 0: none
        """
        watched = self._watched
        if watched.version != self._version:
            self._version = watched.version
            self._made.clear()
        made = self._made.get(since)
        if made is None:
            made = self._made[since] = msgspec.json.encode(self._changed(since))
        return made

    def _changed(self, since: int) -> Mapping[str, Any]:
        watched = self._watched
        told: dict[str, Any] = {
            "full": since == 0,
            "at_ms": time.time() * 1e3,
            "began_ms": watched.began_ms,
            "state": watched.state.value,
            "topology": watched.topology,
            "health": watched.health.raw,
            "waiting": watched.stats.waiting,
            "stages": _newer(watched.stages, since),
            "gone": [name for name, version in watched.gone.items() if version > since > 0],
            "sources": _newer(watched.sources, since),
            "sinks": _newer(watched.sinks, since),
            "shards": _newer(watched.shards, since),
        }
        for name in ("failures", "alarms", "checkpoints"):
            part: ToldPart = getattr(watched, name)
            if part.version > since or since == 0:
                told["errors" if name == "failures" else name] = part.raw
        return told

    async def events(self, closing: asyncio.Event) -> AsyncGenerator[Event]:
        """What there is to tell a client, at most four times a second.

        :param closing: once it is set, the last one has been told
        """
        watched, known, told_at = self._watched, 0, 0.0
        while True:
            ends = closing.is_set()
            watched.look(at_once=ends)
            now = time.monotonic()
            if watched.version != known:
                version = watched.version  # others may have it looked at while this one is told
                yield Event("state", self.state(known))
                known, told_at = version, now
            elif now - told_at > BEAT:
                yield NOTHING_NEW
                told_at = now
            if ends:
                return
            try:
                async with asyncio.timeout(_EVERY):
                    await closing.wait()
            except TimeoutError:
                pass


def _newer(parts: Mapping[str, ToldPart], since: int) -> Mapping[str, msgspec.Raw]:
    return {name: part.raw for name, part in parts.items() if part.version > since}
