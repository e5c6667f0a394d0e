"""A TimeSeries that threads write to and read at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import numpy as np
import pytest
from tests.threads import together

from run_task import TaskInterval, TimeSeries, TimeSeriesView

pytestmark = pytest.mark.usefixtures("switching")


def series(retention: int | TaskInterval | None = None) -> TimeSeries:
    return TimeSeries({"whole": int, "half": float, "text": "U8"}, retention=retention)


def agrees(view: TimeSeriesView) -> bool:
    """Whether the rows are in order, and the columns of each tell the same."""
    whole = view["whole"]
    return bool(
        (np.diff(view.time) >= 0).all()
        and (whole == view.time * 1000 + whole % 1000).all()
        and (view["half"] == whole / 2).all()
        and (view["text"] == whole.astype("U8")).all()
    )


def append(data: TimeSeries, time: int, serial: int) -> None:
    whole = time * 1000 + serial % 1000
    data.append(time, whole=whole, half=whole / 2, text=f"{whole}")


def extend(data: TimeSeries, times: list[int], serial: int) -> None:
    whole = np.array(times) * 1000 + serial % 1000
    data.extend(times, whole=whole, half=whole / 2, text=whole.astype("U8"))


@pytest.mark.parametrize("retention", [None, 150, TaskInterval.millis(100)], ids=str)
def test_no_reader_sees_a_half_made_update_and_no_view_changes(
    retention: int | TaskInterval | None,
) -> None:
    data = series(retention)
    append(data, 0, 0)
    stop = threading.Event()
    torn: list[str] = []

    def write(seed: int) -> Callable[[], None]:
        def run() -> None:
            randomly = random.Random(seed)
            try:
                for i in range(1, 400):
                    if stop.is_set():
                        return
                    late = i - randomly.randrange(30) if randomly.random() < 0.5 else i
                    append(data, max(late, 0), i)
                    if i % 10 == 0:
                        extend(data, [i, max(i - 40, 0), i, i], i)
            finally:
                stop.set()

        return run

    def read(held: int) -> Callable[[], None]:
        """Read again and again, and let a view go only after so many more were taken."""

        def run() -> None:
            views: list[tuple[TimeSeriesView, list[int]]] = []
            while not stop.is_set() and not torn:
                with data.read() as view:
                    if not agrees(view):
                        torn.append(f"torn: {view!r}")
                    views.append((view, view["whole"].tolist()))
                    del view
                if len(views) > held:
                    taken, was = views.pop(0)
                    if taken["whole"].tolist() != was or not agrees(taken):
                        torn.append(f"changed: {taken!r}")
                    del taken

        return run

    together(write(1), write(2), read(0), read(0), read(3))
    assert not torn
    with data.read() as view:
        assert agrees(view)
        if retention is None:
            assert data.dropped == 0


def test_rows_of_all_writers_are_there_once_each() -> None:
    data = series()

    def write(lane: int) -> Callable[[], None]:
        def run() -> None:
            for i in range(150):
                append(data, (i * 7) % 150, lane)

        return run

    def read() -> None:
        length = 0
        while length < 450:
            with data.read() as view:
                assert len(view) >= length
                length = len(view)

    together(write(0), write(1), write(2), read)
    with data.read() as view:
        found = sorted(view["whole"].tolist())
    assert found == sorted(time * 1000 + lane for time in range(150) for lane in range(3))
