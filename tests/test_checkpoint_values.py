"""States come back as they were, in value and type; rows of a series in parts as well as whole."""

from __future__ import annotations

import dataclasses
import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples

from run_task import FolderStore, TimeSeries, TimeUnit, task
from run_task.pipeline.checkpoint._cut import Cut, DataCut, SeriesCut, StageCut
from run_task.pipeline.checkpoint._keeper import Keeper
from run_task.pipeline.checkpoint._restorer import kinds_of
from run_task.pipeline.checkpoint._rows import rows_of
from run_task.pipeline.checkpoint._states_form import (
    StatesForm,
    StatesPart,
    joined,
    states_of,
)
from run_task.pipeline.checkpoint._values import (
    OutdatedError,
    UnkeepableError,
    Values,
    kind_of,
    types_of,
)

pytest.importorskip("pyarrow")


class Colour(Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Inner:
    mean: float
    colour: Colour = Colour.RED


class State(NamedTuple):
    inner: Inner | None = None
    counts: tuple[int, ...] = ()
    array: Any = None


class Sketch:
    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def to_bytes(self) -> bytes:
        return self.data

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        return cls(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and other.data == self.data

    def __hash__(self) -> int:
        return hash(self.data)


@task(state=State)
def stateful(view: Any, start: int, end: int, state: State) -> tuple[Sketch, State]:
    return Sketch(), state


VALUES = Values(types_of(stateful))
TASKS: Any = {"stateful": stateful}

PLAIN = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
FLOATS = st.floats(allow_nan=False)
SCALARS = st.sampled_from(
    [np.float32(0.1), np.int8(-3), np.bool_(True), np.datetime64("2024", "s")]
)
OTHERS = st.sampled_from([Decimal("1.50"), datetime(2024, 1, 1, tzinfo=UTC), 2 + 3j])
ANY = st.recursive(
    PLAIN | FLOATS | SCALARS | OTHERS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.builds(State, st.just(Inner(0.1)), st.tuples(st.integers()), inner)
        | st.builds(Sketch, st.binary())
    ),
    max_leaves=8,
)


_MANY: Any = tuple, list
_MAPPING: Any = dict


def same(one: Any, other: Any) -> bool:
    kind = kind_of(one)
    if kind is not kind_of(other):
        return False
    if issubclass(kind, _MANY):
        return len(one) == len(other) and all(map(same, one, other))
    if issubclass(kind, _MAPPING):
        return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@given(ANY)
@settings(max_examples=examples(200), deadline=None)
def test_a_value_comes_back_as_it_is(value: Any) -> None:
    back = VALUES.value(json.loads(json.dumps(VALUES.tree(value))))
    assert same(back, value)


def test_arrays_and_what_is_no_number_come_back_to_the_bit() -> None:
    array = np.array([[0.1, np.nan], [np.inf, -0.0]])
    back = VALUES.value(VALUES.tree(array))
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
    texts = np.array(["a", None, 3], object)
    assert VALUES.value(VALUES.tree(texts)).tolist() == texts.tolist()


def test_states_of_which_few_have_changed_are_what_all_of_them_are() -> None:
    chance = random.Random(5)
    form = StatesForm()
    states: dict[Any, State] = {}
    known: dict[Any, int] = {}
    parts: list[StatesPart] = []
    there: dict[str, bytes] = {}
    for moment in range(200):
        for _ in range(chance.randrange(8)):
            number = chance.randrange(60)
            key = f"{number}" if number % 2 else number  # of which one text may be two keys
            states[key] = State(Inner(chance.random()), (moment,), str(key))
            known[key] = moment // 2
        for key in chance.sample([*states], chance.randrange(2)) if states else ():
            del states[key], known[key]
        if not states:
            continue
        of_tasks = {"stateful": dict(states)}
        cut = StageCut("grid", 0, 0, 0, [], "k", tasks=TASKS, states=of_tasks, known=dict(known))
        stay, data, count = form.parts(cut, moment, parts)
        if chance.random() < 0.2:
            continue  # it was not written
        parts = [*stay]
        if data is not None:
            parts.append(StatesPart(f"part {moment}", moment, count))
            there[f"part {moment}"] = data
        assert len(parts) <= 8
        tasks, found = joined(there[part.name] for part in parts)
        assert states_of(tasks["stateful"], TASKS["stateful"]) == states
        assert found == known


def test_states_cost_what_has_changed_since_the_checkpoint_before() -> None:
    form = StatesForm()
    states = {f"k{number}": State(Inner(0.5), (number,), "") for number in range(1_000)}
    parts: list[StatesPart] = []
    sizes: list[int] = []
    of_tasks: dict[str, dict[str, State]] = {}
    for number in range(12):
        for key in range(100):
            states[f"k{number * 80 + key}"] = State(Inner(number / 3), (), "")
        of_tasks = {"stateful": dict(states)}
        cut = StageCut("grid", 0, 0, 0, [], "k", tasks=TASKS, states=of_tasks)
        stay, data, count = form.parts(cut, number, parts)
        assert data is not None
        parts = [*stay, StatesPart(str(number), number, count)]
        sizes.append(len(data))
    assert sum(sizes[1:]) < 5 * sizes[0]
    other = StageCut("grid", 0, 0, 0, [], "k2", tasks=TASKS, states=of_tasks)
    stay, data, count = form.parts(other, 12, parts)  # of another kind: nothing of it stays
    assert (stay, count) == ([], len(states))


def test_what_would_not_come_back_has_no_form() -> None:
    class Own(int):
        pass

    @dataclasses.dataclass
    class Local:
        v: int

    for value in (Own(3), Local(1), object(), np.zeros(1, [("a", int)])):
        with pytest.raises(UnkeepableError):
            VALUES.tree(value)


def test_a_type_whose_fields_have_changed_is_told() -> None:
    tree = VALUES.tree(Inner(1.0))
    name = next(iter(tree["$record"]))
    with pytest.raises(OutdatedError, match="had the fields mean, and now has mean, colour"):
        VALUES.value({"$record": [name, {"mean": 1.0}]})
    with pytest.raises(OutdatedError, match="is not there any more"):
        VALUES.value({"$record": ["tests.gone.State", {}]})
    with pytest.raises(OutdatedError):
        VALUES.value({"$tuple": 3})


# Rows

COLUMNS = {
    "k": str,
    "f": float,
    "i": "int32",
    "b": bool,
    "u": "U3",
    "s": "S2",
    "d": "datetime64[ms]",
}


def cut_of(series: TimeSeries) -> Cut:
    told = series.unit.name, series.closed.name, series.key
    return Cut(0, {}, {}, [DataCut(["it"], SeriesCut(kinds_of(series), *told, series.grown()))])


def row(number: int) -> dict[str, Any]:
    return {
        "k": ["a", "ä\0", "\ud800", ""][number % 4],
        "f": number / 7,
        "i": -number,
        "b": number % 2 == 0,
        "u": ["x", "yé", ""][number % 3],
        "s": [b"x", b"", b"yz"][number % 3],
        "d": np.datetime64(number, "ms") if number % 5 else np.datetime64("NaT", "ms"),
    }


def rows_in(store: FolderStore) -> tuple[Any, Any, int, int]:
    """What the last checkpoint has of the series."""
    keeper = Keeper(store, "p")
    saved = keeper.begin()
    keeper.close()
    assert saved is not None
    series = saved.data[0].series
    assert series is not None
    dtypes = [*TimeSeries(COLUMNS, unit=TimeUnit.SECONDS).columns.values()]
    times, columns = rows_of(series.segments, saved.parts, dtypes)
    return times, columns, series.first, len(series.segments)


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "late", "many", "look", "fail"]), st.integers(1, 30)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("retention", [None, 40, "25s"])
@given(steps=STEPS)
@settings(max_examples=examples(25), deadline=None)
def test_each_checkpoint_has_all_rows_whatever_has_come_and_passed_out(
    retention: Any, steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("state")

    class Failing(FolderStore):
        fails = False

        def save(self, *given: Any) -> None:
            if self.fails:
                raise OSError("full")
            super().save(*given)

    series = TimeSeries(COLUMNS, unit=TimeUnit.SECONDS, retention=retention)
    store = Failing(folder)
    keeper = Keeper(store, "p")
    keeper.begin()
    number = 0
    for what, count in [*steps, ("append", 1)]:
        for i in range(count if what in ("append", "many", "late") else 0):
            number += 1
            back = count if what == "late" and i % 3 == 0 else 0
            series.append(1_700_000_000 + max(0, number // 2 - back), **row(number))
        if what == "fail":
            store.fails = True
            with pytest.raises(OSError, match="full"):
                keeper.write(cut_of(series))
            store.fails = False
            continue
        keeper.write(cut_of(series))
        store.close()
        times, columns, _, segments = rows_in(FolderStore(folder))
        view = series.view()
        assert times.tolist() == view.time.tolist()
        for name, column in zip(COLUMNS, columns, strict=True):
            assert repr(column.tolist()) == repr(view[name].tolist()), name
        assert segments <= 8
        store.begin("p")
    keeper.close()


def test_a_checkpoint_costs_what_has_come_since_the_one_before(tmp_path: Path) -> None:
    series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
    series.extend(np.arange(100_000) + 1_700_000_000, v=np.zeros(100_000))
    keeper = Keeper(FolderStore(tmp_path), "p")
    keeper.begin()
    whole = keeper.write(cut_of(series))
    series.append(1_700_200_000, v=1.0)
    least = keeper.write(cut_of(series))
    assert whole > 1_600_000
    assert least < 5_000
    series.append(1_700_099_990, v=1.0)  # late: what comes behind it is written again
    assert keeper.write(cut_of(series)) < 5_000
    keeper.close()


def test_rows_that_are_restored_are_gone_on_with_and_not_written_again(tmp_path: Path) -> None:
    series = TimeSeries({"v": float, "k": str}, unit=TimeUnit.SECONDS, retention=50_000, key="k")
    count = 60_000
    keys = np.array([f"k{i % 10}" for i in range(count)], object)
    series.extend(np.arange(count) + 1_700_000_000, v=np.arange(float(count)), k=keys)
    keeper = Keeper(FolderStore(tmp_path), "p")
    keeper.begin()
    keeper.write(cut_of(series))
    keeper.close()
    again = TimeSeries({"v": float, "k": str}, unit=TimeUnit.SECONDS, retention=50_000, key="k")
    keeper = Keeper(FolderStore(tmp_path), "p")
    saved = keeper.begin()
    assert saved is not None
    found = saved.data[0].series
    assert found is not None
    times, columns = rows_of(found.segments, saved.parts, [*again.columns.values()])
    again.restore(times, columns, found.first)
    keeper.took(["it"], found)
    assert again.view().time.tolist() == series.view().time.tolist()
    assert again.view()["k"].tolist() == series.view()["k"].tolist()
    again.append(1_700_060_000, v=1.0, k="new")
    assert len(again.view()) == 50_000
    assert keeper.write(cut_of(again)) < 5_000
    keeper.close()
