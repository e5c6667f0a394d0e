"""What the results lacked that a stage reads: its own windows, which hold these, lack it, too."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from run_task.pipeline._stage import AnyStage

_MOST: Final = 1024
"""How many results are noted one by one; those before, together."""


class Lacked(NamedTuple):
    """Results that a stage reads, and that lack something."""

    end_ns: int
    """The end of their window, in nanoseconds since the Unix epoch."""

    names: Sequence[str]
    """Who gave nothing for it, as in :attr:`DataSet.behind`."""


class Lacking:
    """What the windows of one stage lack since results lack it that they hold. It is told of these
    when they enter what the stage reads, and tells those in turn that are fed by the stage.

    A window holds the results of each window that ends in it, as it does where these are rows that
    are stamped with that end. What no further window holds is forgotten: they come in order.

    :param noted: what is known from before
    """

    def __init__(self, noted: Iterable[Lacked] = ()) -> None:
        self._noted = deque(noted)
        self._fed: Sequence[Lacking] = ()
        self._lock = threading.Lock()  # stages that run in threads of their own tell it

    @property
    def noted(self) -> Sequence[Lacked]:
        """What windows may still hold."""
        with self._lock:
            return tuple(self._noted)

    def within(self, start_ns: int, end_ns: int) -> Sequence[str]:
        """What a window lacks. Windows that start earlier are not asked for any more."""
        if not self._noted:
            return ()
        with self._lock:
            self._noted = deque(one for one in self._noted if one.end_ns > start_ns)
            held = (one.names for one in self._noted if one.end_ns <= end_ns)
            return together(*held)

    def tell(self, end_ns: int, names: Sequence[str]) -> None:
        """Tell those that are fed by the stage what a window of it lacks, before they can know that
        it is done.

        :param end_ns: the end of the window
        :param names: who gave nothing for it
        """
        for other in self._fed:
            other._note(Lacked(end_ns, names))

    def _note(self, lacked: Lacked) -> None:
        with self._lock:
            noted = self._noted
            noted.append(lacked)
            if len(noted) > _MOST:
                first, second = noted.popleft(), noted.popleft()
                noted.appendleft(Lacked(second.end_ns, together(first.names, second.names)))

    @staticmethod
    def connect(stages: Mapping[Lacking, AnyStage]) -> None:
        """Have each tell those that are fed by its stage, but for itself: what a stage feeds itself
        is as it was after the window before, and so without end.

        :param stages: the stage of each
        """
        readers: dict[int, list[Lacking]] = {}  # by the id of the data
        for lacking, stage in stages.items():
            for data in stage.inputs:
                readers.setdefault(id(data), []).append(lacking)
        for lacking, stage in stages.items():
            fed = (other for route in stage.routes for other in readers.get(id(route.into), ()))
            lacking._fed = [other for other in dict.fromkeys(fed) if other is not lacking]


def together(*names: Iterable[str]) -> Sequence[str]:
    """All names, each once."""
    return tuple(dict.fromkeys(name for some in names for name in some))
