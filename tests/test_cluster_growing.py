"""Files that grow, each of which has all rows of its keys, and which shards follow by themselves,
give what they give in one process, to the bit: whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from tests import test_broker_kills as broker_kills
from tests.support.feeds import FilesFeed
from tests.support.forking import Forking
from tests.support.growing import GrowingFiles
from tests.support.proof import in_proof
from tests.support.shards import LocalLink, LocalTransport, local_shards
from tests.support.threads import beside, eventually
from tests.test_cluster import by_stage, told
from tests.test_cluster_kills import shards_of
from tests.test_cluster_topics import (
    Publishing,
    expected_of,
    past_the_last,
    pipeline,
    recorded,
    windows_until,
)

from run_task import ConfigError, Pipeline, SinkError, SourceError
from run_task.cluster._bytes import as_bytes
from run_task.cluster._messages import PartitionSetup, ReadRows, RowsRead
from run_task.cluster._reading import PartitionReader
from run_task.sources import CsvFile, OnFault

pytest.importorskip("pyarrow")

COLUMNS = {"price": float, "key": str}


def run(made: Pipeline, shards: int) -> Callable[[], object]:
    """Runs it over shards; 0: in one process."""
    return partial(made.run_sharded, shards) if shards else made.run_sync


@pytest.mark.parametrize(
    ("kind", "shards", "deaths"),
    [("csv", 0, 0), ("jsonl", 1, 0), ("csv", 3, 0), ("csv", 3, 12), ("jsonl", 2, 12)],
)
def test_files_that_grow_give_what_their_rows_give(
    kind: str, shards: int, deaths: int, tmp_path: Path
) -> None:
    files = GrowingFiles(tmp_path, 4, COLUMNS, kind)
    published = Publishing(files)
    chance = random.Random(deaths)
    calls = itertools.count()
    at = {chance.randrange(20, 600) for _ in range(deaths)}

    def kill(link: LocalLink) -> None:
        if next(calls) in at:
            link.kill()

    made = pipeline(files.source(), partitioned=True)
    never = mock.patch("run_task.cluster._cluster._TRIES", 1000)
    with local_shards(LocalTransport(kill)), never, beside(run(made, shards)) as result:
        published.begin(made)
        for number in range(3):
            published.publish(0.7)
            files.rename(number)
        published.publish(0.3)
        eventually(past_the_last(made, published), 60)
        made.shutdown()
        result.result(60)
    expected = by_stage(windows_until(expected_of(published), published.rows))
    found = by_stage(windows_until(told(recorded(made).results), published.rows))
    first = {stage: given[0][0] for stage, given in expected.items()}
    assert {
        stage: [one for one in given if one[0] >= first[stage]] for stage, given in found.items()
    } == expected
    counts = made.stats.sources["trades"]
    assert counts.malformed == published.malformed + published.unfit
    assert counts.received == len(published.rows) + published.malformed
    assert counts.late == 0


@pytest.mark.parametrize("numbers", [(0, 0, 0), (2, 3, 1, 2)])
def test_a_run_goes_on_from_its_checkpoint_in_files_that_were_renamed(
    numbers: tuple[int, ...], tmp_path: Path
) -> None:
    files = GrowingFiles(tmp_path / "files", 4, COLUMNS)
    published = Publishing(files)
    found: dict[Any, Any] = {}
    for number, shards in enumerate(numbers):
        made = pipeline(files.source(), tmp_path / "state", partitioned=True)
        with local_shards(), beside(run(made, shards)) as result:
            published.begin(made)
            published.publish(0.7)
            if number == len(numbers) - 1:
                eventually(past_the_last(made, published), 60)
            made.shutdown()
            result.result(60)
        given = [(stage, *rest) for stage, *rest in told(recorded(made).results)]
        found.update(((stage, window), rest) for stage, window, *rest in given)
        if number < len(numbers) - 1:  # while nobody is there
            published.publish(0.1)
            files.rename(number % 3)
            published.publish(0.1)
    expected = {
        (stage, window): rest
        for stage, window, *rest in windows_until(expected_of(published), published.rows)
    }
    first = min(window for _, window in expected)
    last = max(window for _, window in expected)
    assert {at: rest for at, rest in found.items() if first <= at[1] <= last} == expected


def all_were_read(database: Path) -> bool:
    """Whether there are results of all keys."""
    if not database.exists():
        return False
    with contextlib.suppress(SinkError):  # it is being made
        return {row.key for row in broker_kills.results(database)} >= {"k0", "k1", "k2", "k4"}
    return False


@pytest.mark.parametrize("numbers", [(0,), (2, 3, 1)])
def test_after_kills_files_that_grow_give_what_one_process_gives(
    numbers: tuple[int, ...], tmp_path: Path
) -> None:
    pytest.importorskip("sqlalchemy")
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    where, shards = tmp_path / "killed", itertools.cycle(numbers)
    where.mkdir()
    feed = FilesFeed(tmp_path / "files")
    published = broker_kills.Published(feed, chance, repeats=False)
    each = in_proof(15, short=3)
    names = ("driver", "shard") if numbers != (0,) else ("driver",)
    module = "divided" if numbers != (0,) else "brokered"
    with Forking(module) as program:

        def start() -> None:
            told: tuple[object, ...] = "files", 0, feed.name, where
            program.start(*told, *((next(shards),) if numbers != (0,) else ()))

        assert program.line() == "ready\n"
        start()
        try:
            broker_kills.until(lambda: broker_kills.last_number(where / "state"))
            before = broker_kills.last_number(where / "state")
            publish_until = time.monotonic() + 1.0
            events = [*names * each]
            chance.shuffle(events)
            renamed = False
            while events or not renamed or time.monotonic() < publish_until:
                published.publish(2_000)
                time.sleep(0.005)
                number = broker_kills.last_number(where / "state")
                if number <= before + 3 or time.monotonic() < publish_until:
                    continue
                if not renamed and all_were_read(where / "results.db"):
                    feed.rename()  # once shards have opened them, by which they find them
                    renamed = True
                if not events:
                    continue
                publish_until = time.monotonic() + chance.random()
                if events.pop() == "shard":
                    with contextlib.suppress(ProcessLookupError, IndexError):
                        os.kill(chance.choice(shards_of(program.pid)), signal.SIGKILL)
                else:
                    program.kill()
                    program.reap()
                    before = number
                    start()
            published.say_the_last(where / "last")
            broker_kills.until((where / "ended").exists)
        finally:
            if not (where / "ended").exists():
                program.kill()
            lines = program.reap()
        assert "failed\n" not in lines, f"seed {seed}"
        program.finish()
    rows = broker_kills.rows_of(published)
    replayed = broker_kills.replayed("files", rows, tmp_path / "undisturbed", None)
    got, expected = broker_kills.whole(broker_kills.results(where / "results.db"), replayed)
    assert got == expected, f"seed {seed}"


# A shard that reads again


class Shards:
    """Shards that read one file, one after the other, as a driver asks them to."""

    def __init__(self, files: GrowingFiles) -> None:
        series: Any = pipeline([], partitioned=False)
        self._pattern = next(iter(series.stages[0].inputs)).pattern
        (part,) = files.source().partitions().values()
        self._source = as_bytes(part)
        assert part.positioned is not None
        self.positions = [part.positioned.position]
        """Where it begins, and where it goes on behind each answer."""
        self.starts = [0]
        """How many rows were given by then."""
        self._reader: PartitionReader | None = None
        self.die()

    def end(self) -> None:
        """Read no more."""
        if self._reader is not None:
            self._reader.close()

    def die(self) -> None:
        """Have another one read on, which knows where the first row is."""
        self.end()
        skip = as_bytes(OnFault.SKIP)
        self._reader = PartitionReader(
            PartitionSetup(0, "it", self._source, skip, self._pattern, 0, self.positions[0])
        )

    def ask(self) -> RowsRead:
        assert self._reader is not None
        return self._reader.read(ReadRows(0, self.starts[-1], 0, self.positions[-1]))

    def read_up_to(self, count: int) -> None:
        """Ask until so many rows have come."""
        assert self._reader is not None

        def came() -> bool:
            read = self.ask()
            if read.error is not None or read.ended:
                raise AssertionError(read)
            if len(read.times) or read.position is not None:
                self.positions.append(read.position)
                self.starts.append(self.starts[-1] + len(read.times))
            return self.starts[-1] == count

        eventually(came)

    def times(self, *numbers: int) -> list[int]:
        assert self._reader is not None
        found: list[int] = self._reader.rows(np.array(numbers)).times.tolist()
        return found


def row(time: int) -> Any:
    return time, {"price": time / 2, "key": "a"}


@pytest.fixture
def files(tmp_path: Path) -> GrowingFiles:
    return GrowingFiles(tmp_path, 1, COLUMNS)


@pytest.fixture
def shards(files: GrowingFiles) -> Iterator[Shards]:
    files.put(0, row(0), row(1), None)
    made = Shards(files)
    yield made
    made.end()


def test_a_shard_reads_again_in_a_file_that_was_renamed(
    files: GrowingFiles, shards: Shards
) -> None:
    shards.read_up_to(2)
    files.put(0, row(2))
    files.rename(0)
    files.put(0, row(3))
    shards.read_up_to(4)
    for _ in range(3):
        shards.die()
        assert shards.times(3, 1, 0, 2) == [3, 1, 0, 2]
        files.put(0, row(len(shards.starts)))
        shards.read_up_to(shards.starts[-1] + 1)
        assert shards.times(2, 3) == [2, 3]


@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_shard_that_cannot_read_again_what_it_had_says_so(
    is_emptied: bool, files: GrowingFiles, shards: Shards
) -> None:
    shards.read_up_to(2)
    for number in (2, 3):
        if is_emptied:
            os.truncate(files.paths[0], 0)
            files.paths[0].write_text(f"timestamp,price,key\n{number},1.0,another\n")
        else:
            files.rename(0)
            files.put(0, row(number))
        shards.read_up_to(number + 1)
    shards.die()

    with pytest.raises(SourceError, match="shards need the rows of their files for as long as"):
        eventually(lambda: len(shards.ask().times))


def test_a_file_that_is_gone_is_told_by_its_name(files: GrowingFiles, shards: Shards) -> None:
    shards.read_up_to(2)
    shards.positions = shards.positions[-1:]
    shards.starts = shards.starts[-1:]
    files.paths[0].unlink()
    files.put(0, row(1))
    shards.die()
    with pytest.raises(SourceError, match=r"0\.csv: what was read of it, up to byte \d+, is in no"):
        shards.ask()


@pytest.mark.parametrize("name", ["", "*.csv"])
@pytest.mark.parametrize("there", [True, False])
def test_files_are_named_and_no_folder_is_followed(name: str, there: bool, tmp_path: Path) -> None:
    if there:
        (tmp_path / "a.csv").touch()
    with pytest.raises(ConfigError, match="give a list of them"):
        CsvFile(tmp_path / name, columns={"price": float}, follow=True)


@pytest.mark.parametrize("path", ["", "a\0b", 5])
def test_what_is_no_path_is_not_followed(path: Any) -> None:
    with pytest.raises(ConfigError, match="no path"):
        CsvFile(path, columns={"price": float}, follow=True)
