"""The checkpoints of a pipeline in their store: the last one that is whole, and the next.

The text of one is JSON, and says what stands in which part. What grows is in parts that later
checkpoints refer to, too, so that one costs what has changed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Final

from run_task.errors import RunTaskError, described
from run_task.observe._log import Log
from run_task.pipeline.checkpoint._cut import Cut
from run_task.pipeline.checkpoint._saved import (
    FORMAT,
    DamagedError,
    SavedCheckpoint,
    SavedSeries,
    read,
)
from run_task.pipeline.checkpoint._store import CheckpointStore
from run_task.pipeline.checkpoint._values import OutdatedError
from run_task.pipeline.checkpoint._writer import CheckpointContents, CheckpointWriter

_log = Log(__name__)

_KEPT: Final = 2
"""How many checkpoints there are: should the last one be damaged, the one before is taken."""


class Keeper:
    """Writes the checkpoints of one pipeline, and reads the last.

    :param store: where they are kept
    :param pipeline: the pipeline's name
    """

    def __init__(self, store: CheckpointStore, pipeline: str) -> None:
        self._store = store
        self._pipeline = pipeline
        self._number = 0
        self._kept: list[tuple[int, set[str]]] = []  # checkpoints, and the parts of each
        self._before = CheckpointContents()

    @property
    def number(self) -> int:
        """The number of the last checkpoint; 0: there is none."""
        return self._number

    def begin(self) -> SavedCheckpoint | None:
        """Have the store to ourselves, and read the last checkpoint that is whole.

        :return: None: there is none
        :raises ConfigError: if the store is somebody else's
        :raises RunTaskError: if there are checkpoints, and none is whole
        """
        self._store.begin(self._pipeline)
        numbers = list(self._store.numbers())
        self._number = max(numbers, default=0)
        faults: list[str] = []
        for number in reversed(numbers):
            try:
                saved = read(self._store.load(number), self._store.part, self._pipeline, number)
            except (DamagedError, OSError, KeyError, TypeError, ValueError, OutdatedError) as error:
                faults.append(f"{number}: {described(error)}")
                _log.error(
                    "%s: checkpoint %d of %r is damaged, and the one before is taken: %s",
                    *(self._pipeline, number, self._store, described(error)),
                )
                continue
            self._kept = [(number, set(saved.checksums))]
            self._before.checksums = dict(saved.checksums)
            return saved
        if faults:
            self._store.close()
            raise RunTaskError(
                f"{self._store!r}: none of its checkpoints is whole ({'; '.join(faults)}): put it "
                f"elsewhere, and the pipeline begins anew"
            )
        return None

    def close(self) -> None:
        """Let others have the store."""
        self._store.close()

    def took(self, roles: Sequence[str], series: SavedSeries) -> None:
        """The rows of a series are those of the checkpoint: what is in parts is not written again.

        :param roles: what it is to the pipeline now
        """
        self._before.segments[tuple(roles)] = list(series.segments)

    def write(self, cut: Cut) -> int:
        """Write a checkpoint, and let go of those that are not needed any more.

        :return: how many bytes that took
        :raises Exception: if it cannot be written; then those before are as they were
        """
        number = self._number + 1
        writing = CheckpointWriter(self._before, number, cut)
        body = json.dumps(
            {
                "format": FORMAT,
                "pipeline": self._pipeline,
                "number": number,
                "at_ns": cut.at_ns,
                **writing.tree(),
            },
            separators=(",", ":"),
        ).encode("ascii")
        text = body + b"\n" + f"{zlib.crc32(body):08x}".encode("ascii")
        self._number = number  # whatever comes of it, that number is taken
        self._store.save(number, text, writing.parts)
        self._before = writing.written
        writing.done()
        self._kept = [*self._kept[1 - _KEPT :], (number, set(self._before.checksums))]
        wanted = set[str]().union(*(parts for _, parts in self._kept))
        self._store.keep([one for one, _ in self._kept], wanted)
        return len(text) + sum(map(len, writing.parts.values()))
