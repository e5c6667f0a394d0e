"""A pipeline that reads a feed and keeps checkpoints; started by test_broker_kills, which kills
it."""

from __future__ import annotations

import importlib
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support.feeds import MODULES
from tests.support.forking import fork_when_told
from tests.support.growing import GrowingFiles
from tests.support.preload import preload
from tests.support.writer import say

from run_task import (
    Pipeline,
    RunnerConfig,
    Stage,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import CallbackSink, SqlSink
from run_task.sources import (
    Confirm,
    HttpIngest,
    Inbox,
    KafkaSource,
    MqttSource,
    NatsSource,
    RabbitSource,
    RedisStreamSource,
)

COLUMNS: Final = {"k": str, "v": float, "n": int}
JOURNALED: Final = ("mqtt", "http")
"""Kinds of feeds that have no history: a journal keeps their rows."""
REPEATING: Final = ("rabbit", "mqtt", "http")
"""Kinds of feeds without positions, where rows may come twice: ``dedupe=`` tells."""


def grace_ms(kind: str) -> int:
    """For how many milliseconds windows wait for rows of a kind of feed, unless said otherwise. Of
    a broker they wait until it has given what it has; what a journal's are late by is late."""
    return 3_000 if kind in JOURNALED else 1_000


class Decayed(NamedTuple):
    value: float = 0.0
    rows: int = 0


@task(state=Decayed)
def decayed(view: TimeSeriesView, start: int, end: int, state: Decayed) -> tuple[float, Decayed]:
    value = state.value
    for one in view.in_window["v"].tolist():
        value = value * 0.9 + one * 0.1
    return value, Decayed(value, state.rows + len(view.in_window))


@task
def rows(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task(state=float)
def total(view: TimeSeriesView, start: int, end: int, sum_: float) -> tuple[float, float]:
    sum_ += float(view.in_window["decayed"].sum())
    return sum_, sum_


def source_of(kind: str, port: int, name: str) -> Any:
    """A source of what a feed has.

    :param kind: which kind of feed it is
    :param port: where it listens on 127.0.0.1
    :param name: the name of its topic, stream or queue, of several, these with commas; or a folder
    """
    where: Any = f"127.0.0.1:{port}"
    options: Any = {"columns": COLUMNS}
    match kind:
        case "kafka":
            return KafkaSource(name, servers=where, start="earliest", **options)
        case "redis":
            streams = name.split(",")
            return RedisStreamSource(streams, f"redis://{where}", start="earliest", **options)
        case "jetstream":
            return NatsSource(name, f"nats://{where}", stream=name, start="earliest", **options)
        case "rabbit":
            return RabbitSource(name, f"amqp://{where}/", **options)
        case "files":
            return GrowingFiles(Path(name), 4, COLUMNS).source(poll="20ms")
        case "mqtt":
            return MqttSource(name, f"mqtt://{where}", client_id=name, session="1h", **options)
        case _:
            return HttpIngest(port=port, confirm=Confirm.KEPT)


def pipeline(
    kind: str,
    source: Any,
    folder: Path,
    *,
    journal: Path | None,
    checkpoint: bool = True,
    grace: int | None = None,
    idle: str = "2m",
    database: str | None = None,
    partitioned: bool = False,
) -> tuple[Pipeline, Stage[Any, Any]]:
    """Two stages with state and keys, into a database.

    :param kind: which kind of feed it reads
    :param source: what reads it
    :param folder: where its results and checkpoints are
    :param journal: where its rows are kept; None: nowhere
    :param checkpoint: whether it keeps checkpoints
    :param grace: for how many milliseconds windows wait for late rows; None: as long as for such a
        kind
    :param idle: how long they wait for a broker that is away
    :param database: the URL of where its results go; None: into SQLite, in the folder
    :param partitioned: whether shards read its partitions by themselves
    """
    made = Pipeline(
        "p", checkpoint=folder / "state" if checkpoint else None, checkpoint_every="200ms"
    )
    series = TimeSeries(COLUMNS, unit=TimeUnit.MILLIS, key="k", retention="30s")
    made.source(
        source,
        series,
        name="rows",
        idle=idle,
        journal=journal,
        dedupe="n" if kind in REPEATING else None,
        partitioned=partitioned,
    )
    config = RunnerConfig(
        grace=TaskInterval.millis(grace or grace_ms(kind)),
        upstream_timeout=120,  # windows are to wait for shards that are gone
    )
    by_key = made.stage("by key", [decayed, rows], series, "100ms", config, by="k")
    every = made.stage("every", [total], by_key.series("5s"), "500ms", config)
    sink = SqlSink(folder / "results.db" if database is None else database)
    by_key.sink(sink, sharded=True)  # which says something where there are shards
    every.sink(sink)
    return made, every


def run(
    kind: str,
    port: str,
    name: str,
    where: str,
    database: str | None = None,
    address: str | None = None,
    shards: str = "0",
) -> None:
    """Run it until windows are done that come after the last row, as a file says it.

    :param address: of the cluster of Ray that is to have its shards
    :param shards: how many there are; 0: it is run without
    """
    folder = Path(where)
    journal = folder / "journal" if kind in JOURNALED else None
    source = source_of(kind, int(port), name)
    made, every = pipeline(kind, source, folder, journal=journal, database=database)
    done = past_the_last(every, folder / "last")
    told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(_: str, dataset: Any) -> None:
        os.write(told, f"{dataset.window.end} {dataset['total']!r}\n".encode())

    every.sink(CallbackSink(tell))
    if shards == "0":
        with made:
            done.wait()
    else:
        shut_down_once(done, made)
        made.run_sharded(int(shards), address)
    (folder / "ended").touch()


def shut_down_once(done: threading.Event, made: Pipeline) -> None:
    def wait() -> None:
        done.wait()
        made.shutdown()

    threading.Thread(target=wait, daemon=True).start()


def past_the_last(every: Stage[Any, Any], last: Path) -> threading.Event:
    """Set once windows are done that come after the last row.

    :param every: the stage that is done with them last
    :param last: a file, there once the last row is published, with its timestamp
    """
    done = threading.Event()

    def look(_: str, dataset: Any) -> None:
        if last.exists() and dataset.window.end > int(last.read_text()) + 500:
            done.set()

    every.sink(CallbackSink(look))
    return done


def import_all() -> None:
    """Import what runs need, once, and not in each of them; some of it only a run imports."""
    preload("arrow", "sqlite")
    inbox = Inbox[Any]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made, _ = pipeline("", inbox, folder, journal=folder / "journal")
        inbox.put(time.time_ns() // 1_000_000, {"k": "", "v": 0.0, "n": 0})
        with made:
            inbox.close()


def import_client(kind: str, _port: str, _name: str, _where: str, *shards: str) -> None:
    """Import the client of a kind of feed, and what a run over shards needs."""
    for module in (MODULES.get(kind, "pyarrow"), *(("ray", "psycopg") if shards else ())):
        importlib.import_module(module)


def main() -> None:
    import_all()
    say("ready")
    fork_when_told(run, before=import_client)


if __name__ == "__main__":
    main()
