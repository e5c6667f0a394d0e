"""Where partitions of Kafka end, and how fresh that is, as librdkafka tells it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from run_task._extras import need

NEVER: Final = float("-inf")


class KafkaEnds:
    """What the statistics of librdkafka tell of partitions, ten times a second.

    Brokers answer each fetch, also where there is nothing, and are asked anew then: while all that
    have partitions are, what they said last of the ends of these holds.
    """

    def __init__(self) -> None:
        self.of: dict[str, int] = {}
        """The end of each stream, ``"topic/partition"``, as brokers said last; below 0: they have
        not."""
        self.is_up: bool = False
        """Whether some broker is there."""
        self._decode = need("msgspec.json", "kafka").Decoder().decode
        # How often each broker was asked for messages, and when that was more than before.
        self._asked: dict[str, tuple[int, float]] = {}

    def take(self, text: str, paused: Collection[str]) -> float:
        """Take statistics.

        :param text: these
        :param paused: the streams that brokers are not asked for
        :return: up to when the ends hold, by the monotonic clock
        """
        told: Mapping[str, Any] = self._decode(text)
        brokers: Mapping[str, Any] = told["brokers"]
        self.is_up = any(one["state"] == "UP" for one in brokers.values())
        for topic, one in told["topics"].items():
            for partition, of in one["partitions"].items():
                # Of what is part of a transaction that goes on, nothing comes yet.
                if of["ls_offset"] >= 0:
                    self.of[f"{topic}/{partition}"] = of["ls_offset"]
        # They may have waited to be looked at, while a row waited for others.
        at = min(told["ts"] / 1e6, time.monotonic())
        shown: list[float] = []
        for name, one in brokers.items():
            asked: int = one["req"]["Fetch"]
            before, since = self._asked.get(name, (-1, NEVER))
            if one["state"] != "UP":
                asked, since = -1, NEVER
            elif asked > before >= 0:
                since = at
            self._asked[name] = asked, since
            parts = [f"{of['topic']}/{of['partition']}" for of in one["toppars"].values()]
            if any(part not in paused for part in parts):
                shown.append(since)
        return min(shown, default=NEVER)
