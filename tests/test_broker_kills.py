"""Disturbances: a pipeline that reads a broker, and is killed, loses its connection, has its broker
started again and is given rows twice, gives what an undisturbed run gives."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.support.feeds import MODULES, Feed, HttpFeed, feed_of
from tests.support.forking import Forking
from tests.support.proof import PROOF, in_proof
from tests.support.tcp_proxy import Proxy, proxy
from tests.support.threads import PATIENCE

pytest.importorskip("msgspec")
pytest.importorskip("pyarrow")
pytest.importorskip("sqlalchemy")

from tests.support import brokered

from run_task.sinks import Row, SqlSink
from run_task.sources import Journal

_log = logging.getLogger(__name__)

KINDS = tuple(MODULES)


class Extent(NamedTuple):
    """How much of it there is.

    :param rows: how many rows are published, at least
    :param rate: how many a second
    :param kills: how often it is killed
    """

    rows: int
    rate: int
    kills: int


EXTENT = in_proof(Extent(100_000, 5_000, 20), short=Extent(4_000, 2_000, 4))


class Published:
    """The rows that were published, in their order, and those that are to be.

    :param feed: where to
    :param chance: what is left to chance
    :param repeats: whether some are published twice
    """

    def __init__(self, feed: Feed, chance: random.Random, *, repeats: bool) -> None:
        self.rows: list[dict[str, Any]] = []
        self._feed = feed
        self._chance = chance
        self._repeats = repeats
        self._pending: list[dict[str, Any]] = []
        self._due = time.monotonic()

    def publish(self, rate: int) -> None:
        """Publish the rows that are due, stamped with now."""
        now = time.monotonic()
        self._due = max(self._due, now - 0.1)
        if not self._pending:
            stamp = time.time_ns() // 1_000_000
            first = len(self.rows)
            for n in range(first, first + int((now - self._due) * rate)):
                row = {"timestamp": stamp, "k": f"k{n * n % 7}", "v": n * 0.37 % 11, "n": n}
                self._pending.append(row)
            self._due += len(self._pending) / rate
        if self._pending and self._feed.put([*self._again(), *self._pending]):
            self.rows += self._pending
            self._pending = []

    def say_the_last(self, where: Path) -> None:
        """Write when the last one was, at once."""
        beside = where.with_suffix(".new")
        beside.write_text(str(self.rows[-1]["timestamp"]))
        beside.rename(where)

    def _again(self) -> Sequence[dict[str, Any]]:
        if not self._repeats or not self.rows or self._chance.random() < 0.5:
            return ()
        return self._chance.choices(self.rows[-500:], k=2)


class Disturbances:
    """Kills, a network that is silent, a cut, and a broker that is started again, at moments that
    are left to chance."""

    def __init__(
        self,
        program: Forking,
        told: Sequence[object],
        between: Proxy,
        feed: Feed,
        state: Path,
        published: Published,
        chance: random.Random,
    ) -> None:
        self.kills = 0
        self._program = program
        self._told = told
        self._between = between
        self._feed = feed
        self._state = state
        self._published = published
        self._chance = chance
        self._outages = [
            (self._after(0.25), between.stall, between.resume),
            (self._after(0.45), between.cut, between.resume),
            (self._after(0.65), feed.restart, between.resume),
        ]
        self._ends: tuple[float, Callable[[], object]] | None = None
        self._before = self._progress()
        self._kill_at: float | None = time.monotonic() + chance.random() * 0.4

    def _after(self, share: float) -> float:
        """After how many rows something happens: after about that share of them."""
        return EXTENT.rows * (share + 0.15 * self._chance.random())

    def _progress(self) -> tuple[int, int]:
        """The number of the last checkpoint, and the size of the journal."""
        segments = (self._state.parent / "journal").glob("*.journal")
        return last_number(self._state), sum(path.stat().st_size for path in segments)

    @property
    def over(self) -> bool:
        """Whether there are to be no more."""
        return self.kills >= EXTENT.kills and not self._outages and self._ends is None

    def look(self) -> None:
        """Disturb it, if it is time."""
        now, count = time.monotonic(), len(self._published.rows)
        if self._ends is not None:
            at, end = self._ends
            if now >= at:
                end()
                self._ends = None
        elif self._outages and count >= self._outages[0][0]:
            _, begin, end = self._outages.pop(0)
            begin()
            self._ends = time.monotonic() + 0.5, end
        if self._kill_at is None:
            number, size = self._progress()
            # A first checkpoint is made at once, and the second of a run has what it has read.
            if number > self._before[0] + 1 and (size > self._before[1] or not size):
                self._kill_at = now + self._chance.random() * 0.4
        if self.kills < EXTENT.kills and self._kill_at is not None and now >= self._kill_at:
            self._program.kill()
            self._program.reap()
            self.kills += 1
            self._program.start(*self._told)
            self._before = self._progress()
            early = self._chance.random() < 0.2  # it may only be about to begin
            self._kill_at = now + self._chance.random() * 0.2 if early else None


def read_at(feed: Feed, between: Proxy) -> int:
    """The port at which a pipeline is to read a feed, with a proxy between the two."""
    if not isinstance(feed, HttpFeed):
        return between.port
    feed.proxied = between.port  # it is the sender who connects
    return feed.port


def last_number(state: Path) -> int:
    """The number of the last checkpoint that is there."""
    paths = state.glob("checkpoint-*.json") if state.exists() else ()
    return max((int(path.stem.rpartition("-")[2]) for path in paths), default=0)


def results(where: Path | str) -> list[Row]:
    sink = SqlSink(where)
    sink.begin("p")
    found = sorted(sink.rows(), key=lambda row: (row.stage, row.end, row.key, row.task))
    sink.close()
    return found


def arrivals(journal: Path) -> dict[int, int]:
    """When each row came first, in nanoseconds."""
    found: dict[int, int] = {}
    for item in Journal(journal):
        arrival: Any = item.arrival  # a journal's are of NumPy
        found.setdefault(item.row["n"], int(arrival.astype("datetime64[ns]").astype(np.int64)))
    return found


def due_ns(timestamp: int, grace_ms: int) -> int:
    """When the window is due that holds a row."""
    return ((timestamp // 100 + 1) * 100 + grace_ms) * 1_000_000


def replayed(kind: str, source: Any, folder: Path, journal: Path | None) -> list[Row]:
    """What a replay gives, which is what an undisturbed run does."""
    folder.mkdir()
    made, _ = brokered.pipeline(kind, source, folder, journal=journal, checkpoint=False)
    with made.replay() as replay:
        for _ in replay:
            pass
    return results(folder / "results.db")


def rows_of(published: Published) -> list[tuple[int, dict[str, Any]]]:
    """What was published, as a recording."""
    return [
        (row["timestamp"], {name: row[name] for name in brokered.COLUMNS}) for row in published.rows
    ]


def whole(found: Sequence[Row], expected: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """What a live run gave, and what was expected, of the windows that it was to give: from the
    first of these to the last of those by key."""
    last_end = max(row.end for row in expected if row.stage == "by key")
    first = min(row.start for row in expected)
    return (
        [row for row in found if first <= row.start and row.end <= last_end],
        [row for row in expected if row.end <= last_end],
    )


def until(condition: Callable[[], object]) -> None:
    """Wait for what is bound to happen, also on a machine that is busy."""
    deadline = time.monotonic() + 6 * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def program() -> Iterator[Forking]:
    """One for all tests, since it takes a while to import what it needs."""
    with Forking("brokered") as made:
        try:
            assert made.line() == "ready\n"
            yield made
            made.finish()
        finally:
            made.end()


@pytest.mark.parametrize("kind", KINDS)
def test_after_disturbances_the_results_are_those_of_an_undisturbed_run(
    kind: str, program: Forking, tmp_path: Path
) -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    folder = tmp_path / "disturbed"
    folder.mkdir()
    state, ended = folder / "state", folder / "ended"
    repeats = kind in brokered.REPEATING
    begun = time.monotonic()
    with (
        feed_of(kind, tmp_path / "server", restarts=PROOF) as feed,
        proxy("127.0.0.1", feed.port, advertised=kind == "kafka") as between,
    ):
        port = read_at(feed, between)
        words = (kind, port, feed.name or "-", folder)
        program.start(*words)
        try:
            until(lambda: last_number(state))  # it has begun before the rows
            published = Published(feed, chance, repeats=repeats)
            disturbances = Disturbances(program, words, between, feed, state, published, chance)
            while len(published.rows) < EXTENT.rows or not disturbances.over:
                published.publish(EXTENT.rate)
                disturbances.look()
                time.sleep(0.005)
            if kind in brokered.JOURNALED:  # whose rows windows do not wait for
                until(lambda: len(arrivals(folder / "journal")) == len(published.rows))
            published.say_the_last(folder / "last")
            until(ended.exists)
        finally:
            if not ended.exists():
                program.kill()
            lines = program.reap()
        assert "failed\n" not in lines, f"seed {seed}"
    took = time.monotonic() - begun
    rows = rows_of(published)
    expected = replayed(kind, rows, tmp_path / "undisturbed", None)
    late = 0
    if kind in brokered.JOURNALED:
        came = arrivals(folder / "journal")
        assert came.keys() == {row["n"] for row in published.rows}, f"seed {seed}"
        late = sum(came[row["n"]] > due_ns(when, brokered.grace_ms(kind)) for when, row in rows)
        source = brokered.source_of(kind, port, feed.name)
        of_journal = replayed(kind, source, tmp_path / "replayed", folder / "journal")
        # What came while nobody was there to take it may be late, and is so in a replay, too.
        assert late or of_journal == expected, f"seed {seed}"
        expected = of_journal
    got, expected = whole(results(folder / "results.db"), expected)
    _log.info(
        "%s: %d kills, %d rows, of which %d late, in %.1f s: %s",
        *(kind, disturbances.kills, len(rows), late, took),
        "equal" if got == expected else "not equal",
    )
    assert len(got) == len(expected), f"seed {seed}"
    assert got == expected, f"seed {seed}"
    # What has no memory is told at least once, and the same each time.
    told: dict[int, set[float]] = {}
    for line in (folder / "told").read_text().splitlines():
        end, value = line.split()
        told.setdefault(int(end), set()).add(float(value))
    totals = {row.end: {row.value} for row in expected if row.stage == "every"}
    if late:  # a window that had gone on without a row may have it after a kill
        assert all(totals[end] <= told.get(end, set()) for end in totals), f"seed {seed}"
    else:
        assert {end: told.get(end) for end in totals} == totals, f"seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_cut_that_windows_do_not_wait_for_every_row_is_accounted_for(
    kind: str, tmp_path: Path
) -> None:
    chance = random.Random(1)
    with (
        feed_of(kind, tmp_path / "server", restarts=False) as feed,
        proxy("127.0.0.1", feed.port, advertised=kind == "kafka") as between,
    ):
        published = Published(feed, chance, repeats=kind in brokered.REPEATING)
        made, every = brokered.pipeline(
            *(kind, brokered.source_of(kind, read_at(feed, between), feed.name), tmp_path),
            journal=tmp_path / "journal" if kind in brokered.JOURNALED else None,
            grace=100,
            idle="200ms",
        )
        done = brokered.past_the_last(every, tmp_path / "last")

        def publish(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                published.publish(1_000)
                time.sleep(0.005)

        with made:
            publish(0.2)
            until(lambda: made.stats.sources["rows"].stored)
            publish(0.3)
            between.cut()
            publish(1.0)
            between.resume()
            publish(0.2)
            published.say_the_last(tmp_path / "last")
            until(lambda: made.stats.sources["rows"].stored == len(published.rows))
            until(done.is_set)
    counts = made.stats.sources["rows"]
    fates = (counts.stored, counts.malformed, counts.rejected, counts.ahead, counts.duplicate)
    assert counts.received == sum(fates) + counts.expired + counts.waiting
    assert counts.stored == len(published.rows)
    assert counts.late > 0, "windows have waited for it"
    found = [row for row in results(tmp_path / "results.db") if row.task == "rows"]
    in_windows = sum(int(row.value) for row in found)
    assert in_windows == counts.stored - counts.late
    expected = Counter((row["timestamp"] // 100 * 100, row["k"]) for row in published.rows)
    assert all(row.value <= expected[row.start, row.key] for row in found)
