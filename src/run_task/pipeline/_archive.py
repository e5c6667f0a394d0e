"""The numbers that results were, over the last hour, for whoever draws them: in bounded memory."""

from __future__ import annotations

import math
import threading
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from run_task.pipeline._numbers import as_number
from run_task.tasks._alert import Alert
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.tasks._result_fields import fields_of

_RECENT: Final = 600
"""How many of the last windows are kept of each series, however close they are."""

_HOUR: Final = 3600
"""How many of those before."""

_APART: Final = 1.0
"""How many seconds these lie apart at least."""

_A_SECOND: Final = 20.0
"""How many windows a second are kept of each stage in the long run: nobody sees more. Of a stage
that catches up, all are, up to as many as there is room for."""

_MOST_SERIES: Final = 2000
"""How many series are kept, of all stages and keys together: some 70 MB."""

_MOST_KEYS: Final = 200
"""How many keys are watched at a time."""

_WATCHED_FOR: Final = 600.0
"""For how many seconds a key is watched after somebody has asked for it."""

_MOST_FIELDS: Final = 20
"""How many fields of a result are kept."""


def numbers_of(results: Mapping[str, Any]) -> dict[str, float]:
    """What can be drawn of a window: its numbers by task, and those that are fields of a result by
    ``task_field``. An alert is 1 while it is on. NaN: it is no number.

    :param results: by task
    """
    found: dict[str, float] = {}
    for name, value in results.items():
        if type(value) is float:
            found[name] = value
            continue
        if isinstance(value, Alert):
            found[name] = float(value.on)
            continue
        number = as_number(value)
        fields = fields_of(value) if math.isnan(number) else None
        if fields is None:
            found[name] = number
            continue
        for field, part in list(fields.items())[:_MOST_FIELDS]:
            if not math.isnan(number := as_number(part)):
                found[f"{name}_{field}"] = number
    return found


def end_ms(dataset: AnyDataSet) -> float:
    """When the window of a DataSet ended, in milliseconds since the Unix epoch."""
    interval = dataset.interval
    return dataset.timestamp * (1.0 if interval is None else interval.unit.nanos / 1e6)


@dataclass(frozen=True)
class NumbersByWindow:
    """NumbersByWindow by window.

    :param ends_ms: when each window ended, in milliseconds since the Unix epoch, ascending
    :param columns: by name, a number for each of them; NaN: there was none
    """

    ends_ms: Sequence[float]
    columns: Mapping[str, Sequence[float]]


class _NumberTable:
    """NumbersByWindow of some of the last windows.

    :param most: how many windows
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.ends_ms = array("d")
        self.columns: dict[str, array[float]] = {}

    def append(self, ended_ms: float, numbers: Mapping[str, float]) -> None:
        before = len(self.ends_ms)
        self.ends_ms.append(ended_ms)
        for name, column in self.columns.items():
            column.append(numbers.get(name, math.nan))
        for name, number in numbers.items():
            if name not in self.columns:
                self.columns[name] = array("d", [math.nan]) * before
                self.columns[name].append(number)
        if before >= self._most + self._most // 4:  # once in a while, and not each time
            first = before + 1 - self._most
            del self.ends_ms[:first]
            for name, column in list(self.columns.items()):
                del column[:first]
                if all(map(math.isnan, column)):
                    del self.columns[name]  # of a task that is there no more

    def after(self, ended_ms: float) -> NumbersByWindow:
        first = bisect_right(self.ends_ms, ended_ms)
        return NumbersByWindow(
            self.ends_ms[first:], {name: column[first:] for name, column in self.columns.items()}
        )


class _Track:
    """What is kept of a stage, or of a key of one."""

    def __init__(self) -> None:
        self.recent = _NumberTable(_RECENT)
        self.hour = _NumberTable(_HOUR)
        self.asked_at = -math.inf
        self._hour_next_at = -math.inf
        self._room = float(_RECENT)
        self._room_at = -math.inf

    def takes(self, now: float) -> bool:
        """Whether it takes one more window now."""
        self._room = min(self._room + (now - self._room_at) * _A_SECOND, float(_RECENT))
        self._room_at = now
        if self._room < 1:
            return False
        self._room -= 1
        return True

    def append(self, ended_ms: float, numbers: Mapping[str, float], now: float) -> None:
        last = self.recent.ends_ms[-1:]
        if last and last[0] >= ended_ms:
            return  # a window again, or one of a run before
        self.recent.append(ended_ms, numbers)
        if now >= self._hour_next_at:
            self._hour_next_at = now + _APART
            self.hour.append(ended_ms, numbers)

    def after(self, since_ms: float) -> NumbersByWindow:
        recent = self.recent.after(since_ms)
        first = self.recent.ends_ms[0] if self.recent.ends_ms else math.inf
        before = self.hour.after(since_ms)
        count = sum(1 for ended_ms in before.ends_ms if ended_ms < first)
        if not count:
            return recent
        none = [math.nan]
        columns = {
            name: [
                *(before.columns[name][:count] if name in before.columns else none * count),
                *(recent.columns[name] if name in recent.columns else none * len(recent.ends_ms)),
            ]
            for name in {**before.columns, **recent.columns}
        }
        return NumbersByWindow([*before.ends_ms[:count], *recent.ends_ms], columns)

    @property
    def series(self) -> int:
        """How many series it has."""
        return max(len(self.recent.columns), 1)


class Archive:
    """Keeps the numbers of all stages, and of the keys that somebody asks for. From any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._stages: dict[str, _Track] = {}
        self._keys: dict[tuple[str, Any], _Track] = {}  # the one that was asked for last is last

    def note(self, stage: str, dataset: AnyDataSet, now: float) -> None:
        """Take the numbers of a window: without keys all of them, and else those of the keys that
        somebody asks for.

        :param stage: the name of the stage
        :param dataset: what the window gave
        :param now: the time, by the monotonic clock
        """
        if isinstance(dataset, KeyedDataSet):
            for key in self._watched(stage, now):
                of_key = self._keys.get((stage, key))
                if of_key is not None and of_key.takes(now):
                    self._append(of_key, dataset.of_key(key), end_ms(dataset), now)
            return
        track = self._stages.get(stage)
        if track is None:
            with self._mutex:
                if self._series() >= _MOST_SERIES:
                    return
                track = self._stages.setdefault(stage, _Track())
        if track.takes(now):
            self._append(track, dataset, end_ms(dataset), now)

    def note_numbers(
        self, name: str, at_ms: float, numbers: Mapping[str, float], now: float
    ) -> None:
        """Take numbers that are no results.

        :param name: whose they are
        :param at_ms: of when they are, in milliseconds since the Unix epoch
        :param numbers: by name
        :param now: the time, by the monotonic clock
        """
        with self._mutex:
            self._stages.setdefault(name, _Track()).append(at_ms, numbers, now)

    def _append(
        self, track: _Track, results: Mapping[str, Any], ended_ms: float, now: float
    ) -> None:
        numbers = numbers_of(results)
        with self._mutex:
            track.append(ended_ms, numbers, now)

    def _watched(self, stage: str, now: float) -> Sequence[Any]:
        """The keys of a stage that somebody asks for."""
        if not self._keys:
            return ()
        with self._mutex:
            for place, track in list(self._keys.items()):
                if now - track.asked_at > _WATCHED_FOR:
                    del self._keys[place]
            return [key for of_stage, key in self._keys if of_stage == stage]

    def watch(self, stage: str, key: Any, now: float) -> None:
        """Keep what comes for a key from now on, for as long as somebody asks for it every ten
        minutes.

        :param stage: the name of the stage
        :param key: the key
        :param now: the time, by the monotonic clock
        """
        with self._mutex:
            track = self._keys.pop((stage, key), None)
            if track is None:
                while self._keys and (
                    len(self._keys) >= _MOST_KEYS or self._series() >= _MOST_SERIES
                ):
                    # Keys that nothing has come for make room first: or else whoever asks for many
                    # that there are not would take away the numbers of those that there are.
                    found = self._keys.items()
                    empty = (place for place, other in found if not other.recent.columns)
                    del self._keys[next(empty, next(iter(self._keys)))]
                track = _Track()
            self._keys[stage, key] = track
            track.asked_at = now

    def read(self, stage: str, key: Any, since_ms: float) -> NumbersByWindow:
        """What is kept of a stage, or of a key of it.

        :param stage: the name of the stage
        :param key: the key; None: of a stage without keys
        :param since_ms: only windows that ended after that, in milliseconds since the Unix epoch
        """
        with self._mutex:
            track = self._stages.get(stage) if key is None else self._keys.get((stage, key))
            return NumbersByWindow([], {}) if track is None else track.after(since_ms)

    def _series(self) -> int:
        tracks = (*self._stages.values(), *self._keys.values())
        return sum(track.series for track in tracks)
