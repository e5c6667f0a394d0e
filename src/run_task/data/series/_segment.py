"""The rows of one window as a plan takes them, where a declared task is run by itself."""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np

from run_task.data.series._view import TimeSeriesView, placed
from run_task.tasks._declared import Segments

_FIRST: Final = np.zeros(1, np.intp)


def segment_of_window(view: TimeSeriesView) -> Segments:
    """The rows of a window, as one segment.

    :param view: what a task of the window is given
    :raises ConfigError: if it has no window
    """
    rows = view.in_window
    window = placed(view)[4]
    assert window is not None  # else there are no rows in it
    start, end = window
    schema, storage, first, stop, _ = placed(rows)
    return Segments(
        times=lambda: rows.time,
        column=lambda name: storage.array(schema.positions[name] + 1, first, stop),
        # An array of objects, which is looked into as a sequence is, but not declared as one.
        texts=lambda name: cast("Any", rows.encoded(name).texts),
        spans=lambda: (_FIRST, np.array([stop - first], np.intp)),
        window_starts=np.array([start], np.int64),
        window_ends=np.array([end], np.int64),
        unit=schema.unit,
    )
