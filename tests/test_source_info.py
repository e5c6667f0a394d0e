"""What sources say of themselves, and what is known of those that say nothing."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from run_task import ConfigError, Pipeline, RwLock, TaskInterval, TimeUnit, VirtualClock, task
from run_task.sources import (
    CsvFile,
    Source,
    SourceInfo,
    StdinJsonLines,
    about,
    paced,
    polling,
)

SECOND = TaskInterval.seconds(1)
SECONDS = TimeUnit.SECONDS


@task
def total(values: list[float], start: int, end: int) -> float:
    return sum(values)


def add(values: list[float], value: float) -> None:
    values.append(value)


def generated() -> Iterator[tuple[int, float]]:
    yield 0, 1.0


async def generated_async() -> AsyncIterator[tuple[int, float]]:
    yield 0, 1.0


class Old:
    """Says by attributes what it is, as sources used to."""

    unit = SECONDS
    last_timestamp = 7
    endless = False

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return iter([(0, 1.0), (7, 2.0)])


def test_of_a_plain_iterable_its_type_tells_what_there_is_to_know() -> None:
    assert about([(0, 1.0), (5, 2.0)]) == SourceInfo(last=5)
    assert about(((0, 1.0), (5, 2.0))) == SourceInfo(last=5)
    assert about([]) == SourceInfo()
    assert about({0: 1.0}.items()) == SourceInfo()
    assert about(generated()) == SourceInfo(once=True)
    assert about(generated_async()) == SourceInfo(once=True, endless=True)
    for rows in ([5], ["x"], [()], [(1.5, 0.0)]):  # no rows: whoever reads them says so
        assert about(rows) == SourceInfo()


def test_of_what_says_it_that_is_taken() -> None:
    class Rows(list[tuple[int, float]]):
        def about(self) -> SourceInfo:
            return SourceInfo(unit=TimeUnit.MICROS)

    assert about(Rows([(0, 1.0)])) == SourceInfo(unit=TimeUnit.MICROS)


def test_attributes_are_still_read_with_a_warning() -> None:
    assert about(Old()) == SourceInfo(unit=SECONDS, last=7)
    values = RwLock([0.0])
    pipeline = Pipeline()
    with pytest.warns(
        DeprecationWarning, match="Old has unit, endless, last_timestamp: a source"
    ) as declared:
        pipeline.source(Old(), values, add)
    with pytest.warns(DeprecationWarning, match=r"return SourceInfo\(unit=\.\.\., ") as played:
        paced(Old(), 1)
    # The line of the user, which is what is shown to them; and nothing more when it is run.
    assert {w.filename for w in (*declared, *played)} == {__file__}
    pipeline.stage("total", [total], values, SECOND)
    assert len([*pipeline.replay()]) == 8


def test_what_the_ready_made_ones_say(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("timestamp,v\n1,1\nsoon,2\n9,3\n")
    file = CsvFile(path, unit=SECONDS)
    assert file.about() == SourceInfo(unit=SECONDS, last=9)
    assert len(list(file)) == 2
    assert file.about() == SourceInfo(unit=SECONDS, last=9, malformed=1)
    polled = polling(lambda: 1.0, SECOND)
    assert polled.about() == SourceInfo(unit=SECONDS, endless=True)
    stdin = StdinJsonLines(io.StringIO(""), unit=SECONDS)
    assert stdin.about() == SourceInfo(unit=SECONDS, once=True)
    rows = generated()
    played = paced(rows, unit=SECONDS)
    assert played.about() == SourceInfo(unit=SECONDS, once=True, recording=rows, playback=played)
    assert paced(file).about().last == 9
    assert paced(polled).about().endless
    sources: list[Any] = [file, polled, stdin, played]
    assert all(isinstance(source, Source) for source in sources)


def test_a_stream_cannot_be_replayed_twice() -> None:
    lines = '{"timestamp": 1, "v": 2.5}\n{"timestamp": 2, "v": 4.0}\n'
    data = RwLock[list[float]]([])
    stream = StdinJsonLines(io.StringIO(lines), unit=SECONDS)
    pipeline = Pipeline().source(stream, data, lambda values, row: values.append(row["v"]))
    pipeline.stage("a", [total], data, SECOND)
    assert [dataset["total"] for _, dataset in pipeline.replay()] == [2.5, 6.5]
    with pytest.raises(ConfigError, match="it has been read before"):
        pipeline.replay()


def test_an_iterator_that_was_replayed_cannot_be_played() -> None:
    data = RwLock[list[float]]([])
    played = paced(generated(), unit=SECONDS, clock=VirtualClock())
    pipeline = Pipeline().source(played, data, add)
    pipeline.stage("a", [total], data, SECOND)
    assert [dataset["total"] for _, dataset in pipeline.replay()] == [1.0]
    with pytest.raises(ConfigError, match="an iterator gives its rows once"):
        pipeline.run_sync()
