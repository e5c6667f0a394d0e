"""The first rows of a file source, looked at for what most of them should not be."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from run_task.errors import SourceError
from run_task.observe._format import brief
from run_task.pipeline._likely_cause import MALFORMED, of_order, of_parts, of_times
from run_task.sources._faults import faults_told_to
from run_task.sources._protocol import about
from run_task.sources.files._file import RecordedFile

_MOST: Final = 10_000
"""How many rows are looked at, or one batch."""


def warning_of(source: object) -> str | None:
    """What is wrong with most of the first rows of a source, and the likely cause.

    :param source: the source; only files are read for it
    :return: None if nothing is, or it is no file
    """
    info = about(source)
    if not isinstance(source, RecordedFile) or info.unit is None or info.once or info.endless:
        return None
    unit_ns = info.unit.nanos
    faults: list[SourceError] = []
    good = backward = ahead = 0
    latest, present_ns = -(2**63), time.time_ns()
    last = present_ns // unit_ns + 60_000_000_000 // unit_ns
    stamp = 0
    try:
        with faults_told_to(faults.append):
            for batch in source.batches():
                times = batch.timestamps
                if len(times):
                    before = np.maximum(np.maximum.accumulate(times), latest)
                    backward += int(np.count_nonzero(times < before))
                    latest, stamp = int(before[-1]), int(times.max())
                    ahead += int(np.count_nonzero(times > last))
                    good += len(times)
                if good + len(faults) >= _MOST:
                    break
    except SourceError as error:
        return str(error)
    rows = good + len(faults)
    for count, what, cause in (
        (len(faults), "malformed", f"{MALFORMED}; the first: {faults[0] if faults else ''}"),
        (ahead, "stamped after the present", of_times(stamp * unit_ns, present_ns, unit_ns)),
        (backward, "older than rows before them", of_parts(source) or of_order(backward, backward)),
    ):
        if count * 2 > rows:
            told = f"{count:,} of the first {rows:,} rows are {what}"
            return f"{brief(source)}: {told}: the likely cause is {cause}"
    return None
