"""Sources with positions are told how far their rows have entered the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.support.positioned import Kept, KeptAsync, KeptBatches
from tests.support.threads import eventually

from run_task import Pipeline, RwLock, TimeSeries, TimeUnit, task
from run_task.sources import Batch


@task
def held(view: Any, start: int, end: int) -> int:
    return len(view.time)


@task
def count(data: list[Any], start: int, end: int) -> int:
    return len(data)


def keep(data: list[Any], row: Any) -> None:
    data.append(row)


def pipeline() -> tuple[Pipeline, TimeSeries]:
    made = Pipeline("p")
    series = TimeSeries({"v": float}, unit=TimeUnit.MILLIS)
    made.stage("s", [held], series, "1h")
    return made, series


def rows(count: int) -> list[tuple[int, dict[str, float]]]:
    return [(1_700_000_000_000 + i, {"v": float(i)}) for i in range(count)]


def test_a_source_is_told_within_a_second_and_once_more_before_it_is_closed() -> None:
    made, series = pipeline()
    source = Kept(rows(3))
    made.source(source, series)
    with made:
        eventually(lambda: source.commits)
        assert source.commits == [3]
        source.put(*rows(2))
        eventually(lambda: len(series.view()) == 5)
    assert source.commits == [3, 5]


def test_batches_and_async_sources_are_told_of_as_rows_are() -> None:
    made, series = pipeline()
    batch = Batch(np.arange(4, dtype=np.int64) + 1_700_000_000_000, {"v": np.zeros(4)})
    batches, rowwise = KeptBatches([batch, batch]), Kept(rows(3))
    made.source(batches, series)
    made.source(KeptAsync(rowwise), series)
    with made:
        eventually(lambda: len(series.view()) == 11)
    assert batches.commits[-1] == 2
    assert rowwise.commits[-1] == 3


def test_rows_that_have_not_entered_all_data_are_not_told_of() -> None:
    made, series = pipeline()
    lock = RwLock[list[Any]]([])
    made.stage("t", [count], lock, "1h")
    source = Kept()
    made.source(source, into=(series, lock), ingest=(None, keep))
    with made:
        source.put(*rows(2))
        eventually(lambda: source.commits)
        assert source.commits == [2]
        with lock.read():  # so that no row enters it
            source.put(*rows(3))
            eventually(lambda: len(series.view()) == 5)
            eventually(lambda: source.lag == 0)
            assert source.commits == [2]
        eventually(lambda: source.commits[-1] == 5)


def test_a_commit_that_fails_is_made_good_for_by_a_later_one(caplog: Any) -> None:
    class Refusing(Kept):
        refused = 0

        def commit(self, position: Any, /) -> None:
            if not self.refused:
                self.refused += 1
                raise ConnectionError("gone")
            super().commit(position)

    made, series = pipeline()
    source = Refusing(rows(3))
    made.source(source, series)
    with made:
        eventually(lambda: source.refused)
        source.put(*rows(1))
        eventually(lambda: len(series.view()) == 4)
    assert source.commits == [4]
    assert "does not take note" in caplog.text
    assert "gone" in caplog.text


def test_a_source_without_positions_starts_no_thread_for_that() -> None:
    import threading

    made, series = pipeline()
    made.source(rows(3), series)
    with made:
        assert not [thread for thread in threading.enumerate() if "commits" in thread.name]
