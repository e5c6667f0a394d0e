"""Rows that come twice enter once, for as long as they are remembered."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from run_task import (
    ConfigError,
    Pipeline,
    RwLock,
    SourceStats,
    TaskInterval,
    TimeSeries,
    TimeUnit,
    task,
)
from run_task.pipeline import _dedupe
from run_task.pipeline._dedupe import Dedupe, SeenRows
from run_task.sources import Batch, CsvFile

SECOND = TaskInterval.seconds(1)
Row = dict[str, Any]


@task
def count(view: Any, start: int, end: int) -> int:
    return len(view)


def add(rows: list[Row], row: Row) -> None:
    rows.append(row)


def entered(rows: Any, *, live: bool = False, **options: Any) -> tuple[list[Any], SourceStats]:
    """The rows that enter a list, and their counts."""
    data = RwLock[list[Row]]([])
    kept: list[Row] = []

    def keep(into: list[Row], row: Row) -> None:
        kept.append(row)
        into.append(row)

    pipeline = Pipeline("bench")
    pipeline.source(rows, data, keep, max_ahead=None, **options)
    pipeline.stage("a", [count], data, SECOND)
    if live:
        pipeline.run_sync()
    else:
        list(pipeline.replay())
    (counts,) = pipeline.stats.sources.values()
    return kept, counts


@pytest.mark.parametrize("live", [False, True])
def test_a_row_whose_value_came_already_is_counted_and_does_not_enter(live: bool) -> None:
    rows = [(0, {"id": 1}), (1, {"id": 2}), (2, {"id": 1}), (3, {"id": 3}), (3, {"id": 3})]
    letters: list[tuple[Any, str, str]] = []

    def keep(row: Any, reason: str, detail: str) -> None:
        letters.append((row, reason, detail))

    kept, counts = entered(rows, live=live, dedupe="id", dead_letters=keep)
    assert [row["id"] for row in kept] == [1, 2, 3]
    assert (counts.received, counts.stored, counts.duplicate) == (5, 3, 2)
    assert [(row, reason) for row, reason, _ in letters] == [
        ((2, {"id": 1}), "duplicate"),
        ((3, {"id": 3}), "duplicate"),
    ]
    assert letters[0][2] == "id=1 came before, and is remembered for 10m"


def test_it_may_take_several_values_to_tell_a_row() -> None:
    rows = [(0, {"id": a, "part": b}) for a in (1, 2, 1) for b in "xyx"]
    kept, counts = entered(rows, dedupe=("id", "part"))
    assert [(row["id"], row["part"]) for row in kept] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    assert counts.duplicate == 5


def test_a_row_is_forgotten_after_some_time_of_the_rows() -> None:
    rows = [(0, {"id": 1}), (59, {"id": 1}), (60, {"id": 1}), (61, {"id": 1}), (120, {"id": 1})]
    kept, counts = entered(rows, dedupe="id", dedupe_for="1m")
    assert len(kept) == 3  # at 0, 60 and 120
    assert counts.duplicate == 2


def test_late_rows_are_remembered_as_long_as_the_others() -> None:
    rows = [(100, {"id": 1}), (10, {"id": 2}), (159, {"id": 2}), (161, {"id": 2})]
    _, counts = entered(rows, dedupe="id", dedupe_for="1m")
    assert (counts.stored, counts.duplicate) == (3, 1)


def test_rows_without_the_value_are_none_of_them_the_same() -> None:
    rows: list[Any] = [
        (0, {"id": None}),
        (0, {"id": None}),
        (1, {}),
        (1, {}),
        (2, {"id": float("nan")}),
    ] * 2
    _, counts = entered(rows, dedupe="id")
    assert (counts.stored, counts.duplicate) == (10, 0)


def test_values_of_any_kind_tell_rows_apart() -> None:
    values = [True, 1, "1", 1.5, np.int64(7), datetime(2026, 1, 1, tzinfo=UTC), b"x", (1, 2), [3]]
    rows = [(0, {"id": value}) for value in values] * 2
    _, counts = entered(rows, dedupe="id")
    assert (counts.stored, counts.duplicate) == (len(values), len(values))


def test_what_does_not_enter_may_come_again() -> None:
    data = RwLock[list[int]]([])
    fails = iter([True])

    def once(into: list[int], row: Row) -> None:
        if next(fails, False):
            raise ValueError("not now")
        into.append(row["id"])

    pipeline = Pipeline("bench")
    pipeline.source([(0, {"id": 1}), (0, {"id": 1}), (0, {"id": 1})], data, once, dedupe="id")
    pipeline.stage("a", [count], data, SECOND)
    list(pipeline.replay())
    (counts,) = pipeline.stats.sources.values()
    assert (counts.rejected, counts.stored, counts.duplicate) == (1, 1, 1)


def test_rows_that_are_no_mappings_are_malformed() -> None:
    _, counts = entered([(0, 5), (0, {"id": 1})], dedupe="id")
    assert (counts.malformed, counts.stored) == (1, 1)


@pytest.mark.parametrize("retention", [None, "1h"])
def test_rows_of_a_file_enter_a_series_once_live_and_replayed(
    tmp_path: Path, retention: str | None
) -> None:
    path = tmp_path / "rows.csv"
    lines = [f"{second},{second % 50},{second}.5" for second in range(100)]
    path.write_text("time,id,x\n" + "\n".join(lines) + "\n")
    for live in (False, True):
        columns: dict[str, type] = {"id": int, "x": float}
        series = TimeSeries(columns, TimeUnit.SECONDS, retention=retention)
        pipeline = Pipeline("bench")
        source = CsvFile(path, timestamp="time", columns=columns, unit=TimeUnit.SECONDS)
        pipeline.source(source, series, dedupe="id", dedupe_for="40s")
        pipeline.stage("a", [count], series, SECOND)
        if live:
            pipeline.run_sync()
        else:
            list(pipeline.replay())
        (counts,) = pipeline.stats.sources.values()
        assert (counts.received, counts.stored, counts.duplicate) == (100, 100, 0)
        pipeline = Pipeline("bench")
        series = TimeSeries(columns, TimeUnit.SECONDS, retention=retention)
        pipeline.source(source, series, dedupe="id")
        pipeline.stage("a", [count], series, SECOND)
        if live:
            pipeline.run_sync()
        else:
            list(pipeline.replay())
        (counts,) = pipeline.stats.sources.values()
        assert (counts.received, counts.stored, counts.duplicate) == (100, 50, 50)


def test_each_of_several_ways_has_its_own() -> None:
    one, two = RwLock[list[Row]]([]), RwLock[list[Row]]([])
    pipeline = Pipeline("bench")
    rows = [(0, {"id": 1}), (0, {"id": 1})]
    pipeline.source(rows, (one, two), (add, add), dedupe="id")
    pipeline.stage("a", [count], one, SECOND)
    pipeline.stage("b", [count], two, SECOND)
    list(pipeline.replay())
    assert [of.duplicate for of in pipeline.stats.sources.values()] == [1, 1]


def test_memory_is_bounded_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_dedupe, "_MOST", 10)
    rows = [(second, {"id": second}) for second in range(100)]
    _, counts = entered([*rows, (100, {"id": 95}), (100, {"id": 5})], dedupe="id")
    assert counts.duplicate == 1  # 5 is forgotten
    told = [r.getMessage() for r in caplog.records if "dedupe_for" in r.getMessage()]
    assert len(told) == 1
    assert "10 rows are remembered, which are those of the last 10 s" in told[0]


def test_a_run_goes_on_with_what_the_one_before_remembered() -> None:
    seen = SeenRows(dedupe := Dedupe(("id", "part"), TaskInterval.seconds(60)), "source 'x'")
    for second in range(5):
        identity = seen.id_of({"id": second, "part": "a"})
        assert identity is not None
        seen.note(identity, second * 10**9)
    before = seen.remembered()
    seen.note((5, "a"), 5 * 10**9)  # which changes nothing of that
    again = SeenRows(dedupe, "source 'x'")
    again.restore(before)
    assert len(again) == 5
    assert again.has((3, "a"), 5 * 10**9)
    assert not again.has((3, "a"), 63 * 10**9)
    assert again.has((4, "a"), 63 * 10**9)
    other = SeenRows(Dedupe(("id",), SECOND), "source 'x'")
    other.restore(before)
    assert len(other) == 0


def test_rows_by_column_are_told_apart_as_rows_one_by_one_are() -> None:
    chance = np.random.default_rng(7)
    by_column = Batches()
    one_by_one: list[tuple[int, Row]] = []
    for _ in range(200):
        size = int(chance.integers(9, 40))
        span = int(chance.choice([30, 100_000]))
        times = chance.integers(0, 300, size) + 20 * len(by_column.given)
        batch = Batch(
            times.astype(np.int64),
            {
                "id": chance.integers(0, span, size),
                "part": np.array([*map(str, chance.integers(0, 3, size))], object),
            },
        )
        by_column.given.append(batch)
        one_by_one += batch.rows()
    found: list[Any] = []
    for source in (by_column, one_by_one):
        series = TimeSeries({"id": int, "part": str}, TimeUnit.SECONDS)
        pipeline = Pipeline("bench")
        pipeline.source(source, series, dedupe=("id", "part"), dedupe_for="400s", max_ahead=None)
        pipeline.stage("a", [rows_in], series, SECOND)
        replay = pipeline.replay()
        results = [dataset[rows_in] for _, dataset in replay]
        (counts,) = replay.summary.sources.values()
        found.append((results, counts))
    assert found[0] == found[1]
    assert 0 < found[0][1].duplicate < found[0][1].received


class Batches:
    """A source of batches."""

    def __init__(self) -> None:
        self.given: list[Batch] = []

    def batches(self) -> Iterator[Batch]:
        return iter(self.given)

    def __iter__(self) -> Iterator[Any]:
        return (row for batch in self.given for row in batch.rows())


@task
def rows_in(view: Any, start: int, end: int) -> list[Any]:
    inside = view.in_window
    return [*zip(inside["id"].tolist(), inside["part"].tolist())]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"dedupe": 5}, r"dedupe=5: it is the name of a value"),
        ({"dedupe": ()}, r"dedupe=\(\): it is the name"),
        ({"dedupe": ("id", 5)}, "it is the name"),
        ({"dedupe": "nr"}, r"has no column 'nr', but 'id'"),
        ({"dedupe": "id", "dedupe_for": 5}, r"dedupe_for=5"),
        ({"dedupe_for": "1m"}, "dedupe_for='1m': say by dedupe= which values tell rows apart"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], told: str) -> None:
    series = TimeSeries({"id": int}, TimeUnit.SECONDS)
    with pytest.raises(ConfigError, match=told):
        Pipeline("bench").source([(0, {"id": 1})], series, **given)
