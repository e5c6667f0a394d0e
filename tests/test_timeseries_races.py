"""A TimeSeries that threads write to and read at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from tests.support.threads import PATIENCE, beside, together

from run_task import TaskInterval, TimeSeries, TimeSeriesView
from run_task.data.series import _timeseries
from run_task.data.series._column_types import Array
from run_task.data.series._shift import Shift
from run_task.data.series._store import Lease, Store

pytestmark = pytest.mark.usefixtures("switching")


def series(retention: int | TaskInterval | None = None) -> TimeSeries:
    return TimeSeries({"whole": int, "half": float, "text": "U8", "name": str}, retention=retention)


def view_of(data: TimeSeries) -> TimeSeriesView:
    with data.read() as view:
        return view


def times_of(data: TimeSeries) -> list[int]:
    times: list[int] = view_of(data).time.tolist()
    return times


def agrees(view: TimeSeriesView) -> bool:
    """Whether the rows are in order, and the columns of each tell the same."""
    whole = view["whole"]
    return bool(
        (np.diff(view.time) >= 0).all()
        and (whole == view.time * 1000 + whole % 1000).all()
        and (view["half"] == whole / 2).all()
        and (view["text"] == whole.astype("U8")).all()
        and (view["name"] == whole.astype("U8")).all()
    )


def append(data: TimeSeries, time: int, serial: int) -> None:
    whole = time * 1000 + serial % 1000
    data.append(time, whole=whole, half=whole / 2, text=f"{whole}", name=f"{whole}")


def extend(data: TimeSeries, times: list[int], serial: int) -> None:
    whole = np.array(times) * 1000 + serial % 1000
    texts = whole.astype("U8")
    data.extend(times, whole=whole, half=whole / 2, text=texts, name=texts)


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


# A reader that comes at the worst moment.


@pytest.fixture
def ten() -> TimeSeries:
    data = series()
    extend(data, list(range(0, 20, 2)), 0)
    return data


BEFORE = list(range(0, 20, 2))
AFTER = sorted([*BEFORE, 5])


def test_a_reader_that_comes_while_nothing_is_decided_has_the_rows_as_they_were(
    ten: TimeSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[TimeSeriesView] = []
    covered = Store.covered

    def read_and_look(store: Store) -> int:
        until = covered(store)
        taken.append(view_of(ten))  # after the writer has looked for it in vain
        return until

    monkeypatch.setattr(Store, "covered", read_and_look)
    append(ten, 5, 1)
    assert [view.time.tolist() for view in taken] == [BEFORE]
    assert times_of(ten) == AFTER
    assert agrees(taken[0])
    assert agrees(view_of(ten))


def test_a_reader_that_comes_while_rows_move_has_them_where_they_will_be(
    ten: TimeSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[TimeSeriesView] = []
    write = Store.write

    def write_in_part(store: Store, start: int, arrays: Sequence[Array]) -> None:
        with monkeypatch.context() as context:
            context.setattr(Store, "write", write)
            for buffer, array in list(zip(store.arrays, arrays))[:2]:
                buffer[start : start + len(array)] = array
            taken.append(view_of(ten))
            assert agrees(taken[0])
        write(store, start, arrays)

    monkeypatch.setattr(Store, "write", write_in_part)
    append(ten, 5, 1)
    monkeypatch.undo()
    assert [view.time.tolist() for view in taken] == [AFTER]
    assert taken[0].time.base is not None
    assert np.shares_memory(taken[0].time, view_of(ten).time)
    append(ten, 3, 2)  # the one who helped has a lease
    assert taken[0].time.tolist() == AFTER
    assert times_of(ten) == sorted([*AFTER, 3])
    assert agrees(view_of(ten))


def test_a_reader_that_was_about_to_help_does_not_once_it_is_too_late(
    ten: TimeSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving, go, stopped = threading.Event(), threading.Event(), threading.Event()
    move = Shift.move
    main = threading.get_ident()

    def wait_and_move(shift: Shift) -> None:
        if threading.get_ident() != main and not moving.is_set():
            moving.set()
            assert go.wait(PATIENCE)
        move(shift)

    def write() -> None:
        append(ten, 5, 1)
        append(ten, 3, 2)  # moves some of the same rows again
        stopped.set()

    def lease(store: Store, until: int) -> Lease:
        go.set()  # the reader has seen that rows are about to move, and now sleeps for long
        assert stopped.wait(PATIENCE)
        return Lease(store, until)

    monkeypatch.setattr(Shift, "move", wait_and_move)
    with beside(write):
        assert moving.wait(PATIENCE)
        monkeypatch.setattr(_timeseries, "Lease", lease)
        view = view_of(ten)
    assert view.time.tolist() == times_of(ten) == sorted([*AFTER, 3])
    assert agrees(view)


def test_a_reader_that_sleeps_before_it_has_a_lease_sees_what_came_meanwhile(
    ten: TimeSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lease(store: Store, until: int) -> Lease:
        monkeypatch.undo()
        append(ten, 5, 1)
        return Lease(store, until)

    monkeypatch.setattr(_timeseries, "Lease", lease)
    assert times_of(ten) == AFTER


def test_a_reader_that_sleeps_while_old_rows_are_written_over_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = series(retention=10)
    extend(data, list(range(50)), 0)

    def lease(store: Store, until: int) -> Lease:
        monkeypatch.undo()
        for time in range(50, 150):
            append(data, time, 0)
        return Lease(store, until)

    monkeypatch.setattr(_timeseries, "Lease", lease)
    view = view_of(data)
    assert view.time.tolist() == list(range(140, 150))
    assert agrees(view)


def test_a_reader_that_wakes_while_old_rows_are_written_over_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = series(retention=10)
    for time in range(100):
        append(data, time, 0)
    asleep, sliding, awake = threading.Event(), threading.Event(), threading.Event()
    main = threading.get_ident()
    write = Store.write

    def wait_and_write(store: Store, start: int, arrays: Sequence[Array]) -> None:
        sliding.set()
        assert awake.wait(PATIENCE)
        write(store, start, arrays)

    def append_many() -> None:
        assert asleep.wait(PATIENCE)
        for time in range(100, 130):  # one of them finds that it is time to write over old rows
            append(data, time, 0)

    def lease(store: Store, until: int) -> Lease:
        assert threading.get_ident() == main
        monkeypatch.setattr(_timeseries, "Lease", Lease)
        asleep.set()
        assert sliding.wait(PATIENCE)
        return Lease(store, until)

    monkeypatch.setattr(Store, "write", wait_and_write)
    monkeypatch.setattr(_timeseries, "Lease", lease)
    with beside(append_many):
        view = view_of(data)
        awake.set()
    last = int(view.time[-1])
    assert last > 99
    assert view.time.tolist() == list(range(last - 9, last + 1))
    assert agrees(view)
    assert times_of(data) == list(range(120, 130))


def test_rows_are_not_written_over_that_a_reader_looked_at_before_they_slid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = series(retention=10)
    for time in range(100):
        append(data, time, 0)
    taken: list[tuple[TimeSeriesView, list[int]]] = []
    write = Store.write

    def read_and_write(store: Store, start: int, arrays: Sequence[Array]) -> None:
        if not taken:  # after the writer has looked for it in vain
            taken.append((view_of(data), times_of(data)))
        write(store, start, arrays)

    monkeypatch.setattr(Store, "write", read_and_write)
    for time in range(100, 300):
        append(data, time, 0)
        assert times_of(data) == list(range(time - 9, time + 1))
        for view, times in taken:
            assert view.time.tolist() == times
            assert agrees(view)
    assert taken


def test_rows_do_not_slide_onto_those_that_a_reader_looks_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = series(retention=TaskInterval.millis(20))
    taken: list[tuple[TimeSeriesView, list[int]]] = []
    write = Store.write

    def read_and_write(store: Store, start: int, arrays: Sequence[Array]) -> None:
        taken.append((view_of(data), times_of(data)))
        write(store, start, arrays)

    monkeypatch.setattr(Store, "write", read_and_write)
    looked = 0
    # Rows come slowly, and then so fast that more are kept than have passed out.
    for time in [*range(0, 1000, 10), *(t for t in range(1000, 1100) for _ in range(4))]:
        append(data, time, 0)
        for view, times in taken:
            assert view.time.tolist() == times
            assert agrees(view)
            looked += 1
        taken.clear()
    assert looked > 2


@pytest.mark.parametrize("where", ["covered", "write"])
def test_a_late_row_that_is_interrupted_is_there_whole_or_not_at_all(
    ten: TimeSeries, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, where, interrupt)
    with pytest.raises(KeyboardInterrupt):
        append(ten, 5, 1)
    monkeypatch.undo()
    now = AFTER if where == "write" else BEFORE
    assert times_of(ten) == now
    append(ten, 20, 2)
    append(ten, 3, 3)
    assert times_of(ten) == sorted([*now, 3, 20])
    assert agrees(view_of(ten))
