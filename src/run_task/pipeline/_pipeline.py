"""Runners, sources and sinks wired together, live or over history."""

from __future__ import annotations

import copy
import os
from collections.abc import (
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, overload

from run_task.cluster._cluster import Cluster
from run_task.columnar._any_frame import AnyFrame, is_frame
from run_task.data import Shared, TimeSeries, Writable
from run_task.errors import ConfigError, RunTaskError
from run_task.executors._states import States
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._branches import RoutedSource, branched
from run_task.pipeline._dedupe import DEDUPE_FOR, Dedupe
from run_task.pipeline._delivery import Delivery
from run_task.pipeline._fates import SourcePolicy
from run_task.pipeline._graph import configs, group_unit_of, unit_of
from run_task.pipeline._late_rows import warn_of_late_rows
from run_task.pipeline._order import NEVER
from run_task.pipeline._refusals import Omission
from run_task.pipeline._route import Route, targets_of
from run_task.pipeline._row_telemetry import RowTelemetry
from run_task.pipeline._settings_told import of_checkpoint, of_sink
from run_task.pipeline._sharding import (
    check_empty,
    check_target,
    cluster_for,
    over_shards,
    places_alone,
    read_by_shards,
    refusals_of,
    replayed_by_shards,
    series_of,
    started,
    within,
)
from run_task.pipeline._sink_policy import SinkOptions
from run_task.pipeline._sink_start import begin
from run_task.pipeline._source_options import FunctionOptions, SourceOptions
from run_task.pipeline._sources import Sources, unnamed
from run_task.pipeline._stage import AnyStage, BaseStage, KeyedStage, Stage, check_sink
from run_task.pipeline.checkpoint._checks import check_kept, check_source, check_stage, store_of
from run_task.pipeline.checkpoint._store import CheckpointStore
from run_task.pipeline.live._checkpoints import CheckpointSetup, going_on
from run_task.pipeline.live._live import Live
from run_task.pipeline.live._run import LiveRun
from run_task.pipeline.replay._before import Before
from run_task.pipeline.replay._copies import Copies
from run_task.pipeline.replay._history import History, WantedWindows
from run_task.pipeline.replay._instant import span
from run_task.pipeline.replay._origins import origins_of
from run_task.pipeline.replay._output import write_results
from run_task.pipeline.replay._recomputing import recomputed
from run_task.pipeline.replay._replay import Replay
from run_task.pipeline.replay._rows_there import check_rows, with_history
from run_task.pipeline.replay._sink_replacement import RecomputeSummary
from run_task.runner._config import RunnerConfig
from run_task.runner._context import DEFAULT_INTERVAL, SixOrMore
from run_task.runner._keys import DEFAULT_IDLE, DEFAULT_MOST, Keys
from run_task.runner._signals import shut_down_on_sigterm
from run_task.runner._stats import PipelineStats, RunnerStats, SinkStats
from run_task.sinks._protocol import DurableSink, Sink, TypedSink
from run_task.sinks._spool import Spool
from run_task.sources._arguments import check_flag
from run_task.sources._backfill import Backfill
from run_task.sources._faults import OnFault
from run_task.sources._partitioned import by_partition, check_options, partitions_in
from run_task.sources._protocol import (
    AnyUnit,
    Arriving,
    Fitting,
    Rows,
    TellsSenders,
    about,
    warn_of_attributes,
)
from run_task.sources._restarted import restarted
from run_task.sources.journal._journal import Journal
from run_task.sources.journal._journaled import journaled
from run_task.sync._lifecycle import Phase
from run_task.tasks._task import Runnable
from run_task.time._clock import Clock, check_clock
from run_task.time._interval import TimeUnit
from run_task.time._length import EveryLike, IntervalLike, length, plain_length
from run_task.time._moment import TimeLike
from run_task.time._retry import Retry

if TYPE_CHECKING:
    from run_task.observe._drawing import Drawing
    from run_task.pipeline._show import LiveCharts

_log = Log(__name__)

I = TypeVar("I")
O = TypeVar("O")
R = TypeVar("R")
D = TypeVar("D")
D1 = TypeVar("D1")
D2 = TypeVar("D2")
D3 = TypeVar("D3")
D4 = TypeVar("D4")
D5 = TypeVar("D5")

_DEFAULT_CONFIG: Final = RunnerConfig()


def _raise(error: ConfigError) -> None:
    raise error


class Pipeline(Live):
    """Sources, stages and sinks, wired together: run live, or replayed over history.

    ::

        pipeline = Pipeline("machine")
        pipeline.source(CsvFile("temperature.csv"), into=temperature)
        hourly = pipeline.stage("hourly", [mean], temperature, "1h")
        hourly.into(means)
        daily = pipeline.stage("daily", [trend], means, "1d")
        daily.sink(SqlSink("results.db"))

        for stage, dataset in pipeline.replay():  # as fast as the machine goes
            print(stage, dataset)
        pipeline.run_sync()  # or live, until it is shut down

    Stages are connected by the data that one writes and another reads. At a time at which windows
    of both end, the results of the first enter before the second takes its view; so a pipeline
    gives the same results whichever of its threads comes first, and replayed the same as live.

    **Rows.** A row belongs to the windows that are computed after it arrived. It arrives at its
    own timestamp, or, if it is out of order, right after the row before it. A window is computed
    at its end, plus the stage's ``grace``: by then a row that is late has gone to its place.

    **Faults.** A stage that fails, or takes longer than the ``upstream_timeout`` of those it feeds,
    does not hold them up: they go on without its results, and their DataSets say so in
    :attr:`DataSet.behind`. A result that a sink cannot store is left out there, counted and
    logged; a sink that fails as a whole is tried again, and ends the pipeline if that does not
    help, or as :meth:`Stage.sink` was told. All that went wrong is raised at the end, in one
    exception group.

    :param name: what it is called: part of the key of every result, and of thread names
    :param clock: where live stages read the time, unless a source is a recording that is played
        and brings its own; None: the machine's
    :param checkpoint: where its checkpoints are kept: a folder, or a
        :class:`~run_task.pipeline.CheckpointStore`. Every so often, after the sinks have flushed,
        there is one, of the positions of the sources, the retained rows of each ``TimeSeries``,
        the states of tasks, and which windows are done. Run live, the pipeline goes on from the
        last one as if nothing had happened, after any end, also a kill; a replay does not touch
        it. None: there are none
    :param checkpoint_every: how long after one the next is made
    :raises ConfigError: if the name is no text, or empty, or the clock is none, or checkpoints
        cannot be kept there
    """

    def __init__(
        self,
        name: str = "pipeline",
        *,
        clock: Clock | None = None,
        checkpoint: str | os.PathLike[str] | CheckpointStore | None = None,
        checkpoint_every: IntervalLike = "1s",
    ) -> None:
        given: object = name  # a caller without a type checker may pass anything
        if type(given) is not str or not given:
            raise ConfigError(f"Pipeline({name!r}): its name is a text that is not empty")
        super().__init__(name)
        if clock is not None:
            check_clock(clock)
        self._clock = clock
        self._checkpoint: CheckpointStore | None = None
        self._checkpoint_every = 1.0
        if checkpoint is not None:
            self._checkpoint = store_of(checkpoint)
            every = plain_length(checkpoint_every, "Pipeline(checkpoint_every={})")
            self._checkpoint_every = every.nanos / 1e9
        self._sources = Sources()
        self._sinks_of_all: list[Sink] = []
        self._resumed: set[int] = set()  # the ids of routes whose rows are in the data
        self._cluster: Cluster | None = None  # of the last run over shards
        self._before: Before | None = None  # what data was like before it was run or resumed

    @property
    def stages(self) -> Sequence[AnyStage]:
        """Its stages, those that are fed after those that feed them."""
        return tuple(self._graph.upstreams())

    @property
    def sources(self) -> Sequence[tuple[object, object]]:
        """Its sources, each with the data that its rows enter: of several, once with each."""
        return tuple((source, route.into) for source, route in self._sources.routed)

    @property
    def source_titles(self) -> Sequence[str]:
        """What to call each of its sources where people read it: by the name that it was given, or
        else in its own words. In the order of :attr:`sources`."""
        return self._sources.titles

    @property
    def settings(self) -> Sequence[str]:
        """What it does to go on after an end, in words."""
        if self._checkpoint is None:
            return ()
        return (of_checkpoint(self._checkpoint, self._checkpoint_every),)

    @property
    def source_settings(self) -> Sequence[Sequence[str]]:
        """What was said of each of its sources, in words. In the order of :attr:`sources`."""
        return self._sources.settings

    def sink_settings(self, sink: Sink) -> Sequence[str]:
        """What was said of a sink of its stages, in words."""
        of_shards = any(one is sink for stage in self.stages for one in stage.sharded_sinks)
        written = ("written by shards, where there are any",) if of_shards else ()
        return (*of_sink(self._changing.policy_of(sink)), *written)

    @property
    def stats(self) -> PipelineStats:
        """How it has been doing live, and what has become of the rows of its sources: live, or, if
        it was not run yet, in the last replay or resume. At any time, from any thread."""
        stages = {stage.name: RunnerStats() for stage in self.stages}
        waiting = lost = 0
        sinks: Mapping[str, SinkStats] = {}
        if self._run is not None:
            known, waiting, lost, sinks = self._run.stats()
            stages |= known
        sources, entered = self._sources.stats()
        refused = self._changing.refusals.count(Omission.REFUSED)
        changes = self._changing.latest
        return PipelineStats(
            *(stages, entered, waiting, refused, lost, sources, changes),
            dropped=self._changing.refusals.count(Omission.DROPPED),
            rejected=self._changing.refusals.count(Omission.REJECTED),
            sinks=sinks,
            checkpoints=None if self._run is None else self._run.checkpoints,
            shards={} if self._cluster is None else self._cluster.stats,
        )

    # Declaration

    @overload
    def source(
        self,
        source: Rows[Mapping[str, Any]] | AnyFrame,
        into: TimeSeries,
        ingest: None = None,
        **options: Unpack[SourceOptions],
    ) -> Pipeline: ...
    @overload
    def source(
        self,
        source: Rows[R] | AnyFrame,
        into: Writable[D],
        ingest: Callable[[D, R], object],
        **options: Unpack[SourceOptions],
    ) -> Pipeline: ...
    @overload
    def source(
        self,
        source: Rows[Mapping[str, Any]] | AnyFrame,
        into: tuple[TimeSeries, ...],
        ingest: None = None,
        **options: Unpack[SourceOptions],
    ) -> Pipeline: ...
    @overload
    def source(
        self,
        source: Rows[R] | AnyFrame,
        into: tuple[Writable[D1], Writable[D2]],
        ingest: tuple[Callable[[D1, R], object] | None, Callable[[D2, R], object] | None],
        **options: Unpack[SourceOptions],
    ) -> Pipeline: ...
    @overload
    def source(
        self,
        source: Rows[R] | AnyFrame,
        into: tuple[Writable[D1], Writable[D2], Writable[D3]],
        ingest: tuple[
            Callable[[D1, R], object] | None,
            Callable[[D2, R], object] | None,
            Callable[[D3, R], object] | None,
        ],
        **options: Unpack[SourceOptions],
    ) -> Pipeline: ...
    @overload
    def source(
        self,
        source: Callable[[], Rows[Mapping[str, Any]]],
        into: TimeSeries,
        ingest: None = None,
        *,
        retry: Retry,
        **options: Unpack[FunctionOptions],
    ) -> Pipeline: ...
    @overload
    def source(
        self,
        source: Callable[[], Rows[R]],
        into: Writable[D],
        ingest: Callable[[D, R], object],
        *,
        retry: Retry,
        **options: Unpack[FunctionOptions],
    ) -> Pipeline: ...
    def source(
        self,
        source: Any,
        into: Any,
        ingest: Any = None,
        *,
        unit: TimeUnit | None = None,
        name: str | None = None,
        max_ahead: IntervalLike | None = "1m",
        on_bad_row: OnFault = OnFault.SKIP,
        dead_letters: Any = None,
        zone: str | tzinfo | None = None,
        idle: IntervalLike = "10s",
        journal: str | os.PathLike[str] | Journal | None = None,
        retry: Retry | None = None,
        dedupe: str | tuple[str, ...] | None = None,
        dedupe_for: IntervalLike = DEDUPE_FOR,
        partitioned: bool = False,
    ) -> Pipeline:
        """Let a source's rows enter shared data: while the pipeline runs, from any thread, from now
        on.

        :param source: an iterable or async iterable of ``(timestamp, row)``, or :class:`Arrived`,
            such as those of :mod:`run_task.sources`; a timestamp is an int, an aware datetime, or a
            ``numpy.datetime64``, of which what is finer than the unit is rounded down. Or a frame:
            of polars, also a lazy one, of pandas or pyarrow, or anything with columns and
            ``__arrow_c_stream__``, as :class:`~run_task.sources.FrameSource` has it. With
            ``retry=`` also a function without arguments that returns such an iterable
        :param into: the data; several as a tuple: each row enters all of them
        :param ingest: how a row enters it: called with the value of an ``RwLock``, which nobody
            else has meanwhile, or with an ``Atom`` or ``TimeSeries`` itself, and the row. None: for
            a ``TimeSeries``, whose rows are mappings of column to value. For several data a tuple
            of as many, ``into=(raw, latest), ingest=(None, keep)``; all are given the same row
        :param unit: the unit of the timestamps; None: what the source, or its data, says, or that
            of the stages that read the data
        :param name: what it is called in :attr:`PipelineStats.sources`; None: ``"source-1"``,
            ``"source-2"`` and so on, as they are declared. What becomes of a row is counted for
            each of several data by itself: under ``"source-1[0]"``, ``"source-1[1]"`` and so on
        :param max_ahead: how long after the present a row may be stamped: live, after the time of
            the run. One that is more is refused and counted, as if it had not come; one that is
            less waits for its time, and holds up no other. At most 100 000 rows of a source wait:
            while so many do, it is not read on. None: a row may be stamped with any time
        :param on_bad_row: what to do with a row that is malformed, or that ``ingest`` or the data
            refuses: count it and go on, or end with what was raised, after the rows before it. Of
            what a file finds malformed, ``RAISE`` ends the source if it is said here or there, by
            ``on_malformed``
        :param dead_letters: what is given each row that is not stored, with the reason, as a
            :class:`DeadLetter`: a function, called with ``(row, reason, detail)``; shared data with
            an ingest, ``(data, ingest)``, which is called with the data and the letter; or a sink,
            which is given a result of the source's name and the microsecond at which it came. Rows
            that a source itself finds malformed while it reads are None, and the detail says more
        :param zone: what timestamps mean that name no time zone, such as ``"Europe/Berlin"``; None:
            what the series says, or else such a row is malformed
        :param idle: for how long windows wait for a source that says how far it has been read
            (:class:`~run_task.sources.Positioned`) while there are rows that it has not given, or
            it does not know, as while it is disconnected: until it has given a row as late as the
            window is due, or has caught up, or has not changed for this long. So an outage that is
            shorter changes nothing in any result
        :param journal: the folder in which its rows are kept, with when they came, before they
            enter; or a :class:`~run_task.sources.Journal`, which can be told more. Then a replay
            reads what is kept there, each row as late as it was. None: they are kept nowhere
        :param retry: how often it is started again when it raises, but for a SourceError or a
            ConfigError, or when it ends although it has no end: behind the last row that it gave,
            if it has positions; one that has an end begins anew, and the rows that it gave before
            are left out; any other gives what comes then. ``attempts`` counts failures without a
            row between. With ``Then.RAISE``, it then ends with what it raised, and with
            ``Then.DROP`` with a warning; the pipeline goes on without it. An iterator cannot begin
            again: give the function that makes it. None: it ends with the first failure
        :param dedupe: the name of the value, or a tuple of names, that tells a row from all others,
            such as an id: a row with the same as one that has entered before is left out, and
            counted as ``duplicate``. One that lacks a value enters. None: all do
        :param dedupe_for: how long a row is remembered, in the time of the rows. At most a million
            are remembered
        :param partitioned: whether its partitions are divided by the key of ``into``, so that all
            rows of a key are in one of them, as in a folder with a file for each of some keys, or
            in a topic of Kafka whose messages have it as their key. Then shards read them by
            themselves, and keep the rows (:meth:`run_sharded`); and rows of all partitions are
            brought together by time, with shards and without
        :return: the pipeline
        :raises ConfigError: if something about it cannot work; while it runs, also if no stage
            reads the data, or it is a recording that is played, by paced()
        :raises RunTaskError: if the pipeline comes to its end
        """
        if is_frame(source):
            from run_task.sources._frame_source import FrameSource

            zones = [zone, *(getattr(one, "zone", None) for one, _ in targets_of("", into, ingest))]
            source = FrameSource(source, zone=next((one for one in zones if one is not None), None))
        where = f"source {brief(source) if name is None else repr(name)}"
        if isinstance(source, str | bytes | os.PathLike):
            raise ConfigError(
                f"{where}: a path is no source: read the file, as by CsvFile, JsonLinesFile, "
                f"ParquetFile or ArrowFile of run_task.sources"
            )
        if retry is None and not (hasattr(source, "__iter__") or hasattr(source, "__aiter__")):
            raise ConfigError(
                f"{where}: it is no iterable of (timestamp, row): for a function, polling() makes "
                f"one"
            )
        warn_of_attributes(source)
        targets = targets_of(where, into, ingest)
        if isinstance(source, TellsSenders) and max_ahead is not None:
            source.refuse_ahead(length(max_ahead, f"{where}: max_ahead={{}}").nanos)
        if isinstance(source, Fitting):
            series = [one for one, enter in targets if isinstance(one, TimeSeries) and not enter]
            fitting = [source.fitting(one) for one in series]
            source = fitting[0] if fitting else source
        check_flag(where, "partitioned", partitioned)
        if partitioned:
            needing = {"journal": journal, "retry": retry, "dedupe": dedupe}
            check_options(where, targets, {**needing, "dead_letters": dead_letters})
            source = by_partition(where, source, targets[0][0])
        if retry is not None:
            source = restarted(where, source, retry)
        with self._changing.lock:
            number = self._sources.next_number
            called = unnamed(number) if name is None else name
            routes: list[Route] = []
            for one, enter in targets:
                route = Route.checked(where, one, enter, zone=zone, number=number)
                if enter is None and not callable(getattr(one, "append", None)):
                    raise ConfigError(f"{where}: say by ingest= how a row enters {brief(one)}")
                unit_of(source, one, unit, ())
                routes.append(route)
            if journal is not None and isinstance(source, Backfill):
                raise ConfigError(
                    f"{where}: journal={brief(journal)}: a backfill begins with its history each "
                    f"time, which the journal would keep again: give the live source a journal in "
                    f"a source() of its own, and go on from that by resume()"
                )
            if journal is not None:
                source = journaled(where, source, journal, routes[0].clock)
            group_unit_of(source, [one for one, _ in targets], unit)
            as_is = [one for one, enter in targets if isinstance(one, TimeSeries) and not enter]
            told_apart = Dedupe.checked(where, dedupe, dedupe_for, as_is)
            policy = SourcePolicy.checked(
                *(where, called, self._sources.policy_names, on_bad_row, max_ahead, dead_letters),
                *(self._name, idle, told_apart),
            )
            with self._sources.adding(where, source, unit, routes, called, policy):
                if self._before is not None:
                    self._before.note(route.into for route in routes)
                self._read_live(source, routes)
        return self

    def _read_live(self, source: Any, routes: Sequence[Route]) -> None:
        """Read a source that was added, if the pipeline runs."""
        run = self._run
        if run is None or not self._changing.is_running:
            return
        if about(source).playback is not None:
            raise ConfigError(
                f"{routes[0].origin}: time in a pipeline that plays recordings is theirs from the "
                f"beginning on, and it runs: declare it before, or give its rows without paced()"
            )
        for route in routes:
            check_target(route)
        if self._changing.cluster is not None and partitions_in(source) is not None:
            raise ConfigError(
                f"{routes[0].origin}: partitioned=True: shards read what is declared before they "
                f"start: declare it before, or leave partitioned=True out"
            )
        name = self._sources.policy(routes[0]).name
        if self._checkpoint is not None:
            check_source(name, source, routes)
        _, declared = self._plan(of=routes)
        self._sources.take(declared)
        fates = self._sources.new_fates(declared, live=True)
        warn_of_late_rows(run.configs(), declared)
        run.add_source(declared, fates, name)
        self._sources.are_received(declared, fates)
        self._changing.note(f"source {name!r} is added")

    def _remove_source(self, name: str, number: int) -> None:
        """Remove a source, under the lock: if the pipeline runs, it is closed."""
        if self._run is not None and self._changing.is_running:
            self._run.remove_source(self._sources.routes_of(number))
            self._changing.note(f"source {name!r} is removed")
        self._sources.remove(number)

    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[I, O]],
        data: Shared[I],
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
    ) -> Stage[I, O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[tuple[D1, D2], O]],
        data: tuple[Shared[D1], Shared[D2]],
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
    ) -> Stage[tuple[D1, D2], O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[tuple[D1, D2, D3], O]],
        data: tuple[Shared[D1], Shared[D2], Shared[D3]],
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
    ) -> Stage[tuple[D1, D2, D3], O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[tuple[D1, D2, D3, D4], O]],
        data: tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4]],
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
    ) -> Stage[tuple[D1, D2, D3, D4], O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[tuple[D1, D2, D3, D4, D5], O]],
        data: tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4], Shared[D5]],
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
    ) -> Stage[tuple[D1, D2, D3, D4, D5], O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[tuple[Any, ...], O]],
        data: SixOrMore,
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
    ) -> Stage[tuple[Any, ...], O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[I, O]],
        data: Shared[I],
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
        *,
        by: str,
        key_idle: IntervalLike = ...,
        max_keys: int = ...,
    ) -> KeyedStage[I, O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[tuple[D1, D2], O]],
        data: tuple[Shared[D1], Shared[D2]],
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
        *,
        by: str,
        key_idle: IntervalLike = ...,
        max_keys: int = ...,
    ) -> KeyedStage[tuple[D1, D2], O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[tuple[D1, D2, D3], O]],
        data: tuple[Shared[D1], Shared[D2], Shared[D3]],
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
        *,
        by: str,
        key_idle: IntervalLike = ...,
        max_keys: int = ...,
    ) -> KeyedStage[tuple[D1, D2, D3], O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[tuple[D1, D2, D3, D4], O]],
        data: tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4]],
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
        *,
        by: str,
        key_idle: IntervalLike = ...,
        max_keys: int = ...,
    ) -> KeyedStage[tuple[D1, D2, D3, D4], O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[tuple[D1, D2, D3, D4, D5], O]],
        data: tuple[Shared[D1], Shared[D2], Shared[D3], Shared[D4], Shared[D5]],
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
        *,
        by: str,
        key_idle: IntervalLike = ...,
        max_keys: int = ...,
    ) -> KeyedStage[tuple[D1, D2, D3, D4, D5], O]: ...
    @overload
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[tuple[Any, ...], O]],
        data: SixOrMore,
        interval: EveryLike = ...,
        config: RunnerConfig = ...,
        *,
        by: str,
        key_idle: IntervalLike = ...,
        max_keys: int = ...,
    ) -> KeyedStage[tuple[Any, ...], O]: ...
    def stage(
        self,
        name: str,
        tasks: Iterable[Runnable[Any, Any]],
        data: Any,
        interval: EveryLike = DEFAULT_INTERVAL,
        config: RunnerConfig = _DEFAULT_CONFIG,
        *,
        by: str | None = None,
        key_idle: IntervalLike = DEFAULT_IDLE,
        max_keys: int = DEFAULT_MOST,
    ) -> Any:
        """Add a stage: while the pipeline runs, from any thread, from the next window on.

        A stage that is added to a pipeline that runs begins with the first window that is not due
        yet and of which all rows are there: not with one that began before the series did, or of
        which rows have passed out of retention. Sinks and routes that it is given after that get
        the windows from then on.

        :param name: what it is called; no two stages share one
        :param tasks: what it runs; at least one, no two of one name
        :param data: what they read; several as a tuple, of which they get a tuple of views, of one
            moment. It may be what the stage's own results enter, by :meth:`Stage.into`: then a
            window sees it as it was after the one before
        :param interval: how often: a timedelta, a text, such as ``"5s"``, or a CalendarInterval,
            which take the unit of the data (of several, of the first that has one), or seconds
            where it has none; or a TaskInterval in that unit. Its unit is that of the stage's
            timestamps
        :param config: everything else; its name is not used
        :param by: run each task once for each key, over a view of the rows of that key: the column
            of the key, which the ``TimeSeries`` was made with. Of several inputs, a task sees of
            each that has this key the rows of the key, and the whole of the others; the keys are
            those of all of them together. Results are then a
            :class:`~run_task.KeyedDataSet`
        :param key_idle: after how long without a row a key is forgotten, in the time of the rows
        :param max_keys: how many keys there may be in the rows that the data holds: a row whose
            key is one more is refused, and the least of several limits holds
        :return: the stage, to say where its results go
        :raises ConfigError: if something about it cannot work
        :raises RunTaskError: if the pipeline comes to its end
        """
        given: object = name
        if type(given) is not str or not given:
            raise ConfigError(f"stage({name!r}): a stage's name is a text that is not empty")
        declared = name, tasks, data, interval, config, self._changing
        stage: Stage[Any, Any] | KeyedStage[Any, Any]
        if by is None:
            for option, value, default in (
                ("key_idle", key_idle, DEFAULT_IDLE),
                ("max_keys", max_keys, DEFAULT_MOST),
            ):
                if value != default:
                    raise ConfigError(
                        f"stage {name!r}: {option}={value!r}: it is for a stage by key: say by= of "
                        f"which column"
                    )
            stage = Stage(*declared)
        else:
            try:
                keys = Keys.checked(by, key_idle, max_keys)
            except ConfigError as error:
                raise ConfigError(f"stage {name!r}: {error}") from None
            stage = KeyedStage(*declared, keys)
        with self._changing.lock:
            if name in self._graph:
                raise ConfigError(
                    f"two stages are called {name!r}: rename one of them, since the name is part "
                    f"of the key of its results"
                )
            if self._checkpoint is not None and self._changing.is_running:
                check_stage(stage)
            if self._before is not None:
                self._before.note(stage.inputs)
            self._changing.add(stage)
            try:
                for sink in self._sinks_of_all:
                    stage.sink(sink)
            except BaseException:
                self._changing.remove(stage)
                raise
        return stage

    def sink(
        self,
        sink: Sink,
        *,
        retry: Retry | None = None,
        spool: str | os.PathLike[str] | Spool | None = None,
        dead_letters: Any = None,
    ) -> Pipeline:
        """Let each DataSet of all stages be written to a sink, also of those that are added later:
        while it runs, from any thread, from the next window on.

        :param sink: where to
        :param retry: as for :meth:`Stage.sink`
        :param spool: as for :meth:`Stage.sink`
        :param dead_letters: as for :meth:`Stage.sink`
        :return: the pipeline
        :raises ConfigError: if it is no sink, or a table of the results of one stage, and there are
            several, or something else was said of it before
        :raises RunTaskError: if the pipeline ends
        """
        where = f"pipeline {self._name!r}"
        check_sink(where, sink)
        with self._changing.lock:
            if isinstance(sink, TypedSink) and sink.is_of_one_stage and len(self._graph.stages) > 1:
                raise ConfigError(
                    f"pipeline {self._name!r}: {brief(sink)} is a table of the results of one "
                    f"stage, and this has {len(self._graph.stages)}: give it to one by "
                    f"stage.sink(), or take layout=Layout.LONG"
                )
            options: SinkOptions = {"retry": retry, "spool": spool, "dead_letters": dead_letters}
            self._changing.say_of_sink(where, sink, options)
            for stage in self._graph.stages:
                if sink not in stage.sinks:
                    stage.sink(sink)
            self._sinks_of_all.append(sink)
        return self

    def remove(self, name: str | AnyStage) -> None:
        """Remove a stage or a source. From any thread, also while it runs. Returns at once.

        A source is closed, so that its ``finally`` runs, as in a shutdown; rows that it has given
        by then are entered. Its counts stay in :attr:`stats`. The pipeline goes on, also without
        any source.

        While it runs, the stage runs the windows that are due by now, hands their results on, and
        ends; its sinks are flushed within a second, and closed when the pipeline ends. What it fed
        stays, and stages that read that go on without its results; data that it alone read is still
        entered by its sources. Its counts stay in :attr:`stats`, and another stage may be added
        with its name: that begins with the windows after, and counts go on. With its last stage
        removed, the pipeline goes on with its sources until another is added, or it is shut down.

        :param name: its name; or a stage itself
        :raises ConfigError: if there is no such stage or source, or one of each
        :raises RunTaskError: if the pipeline ends
        """
        with self._changing.lock:
            if isinstance(name, BaseStage):
                if self._graph.find(name.name) is not name:
                    raise ConfigError(f"remove({brief(name)}): it is no stage of this pipeline")
                self._changing.remove(name)
                return
            stage = self._graph.find(name)
            number = self._sources.number_of(name)
            if stage is not None and number is not None:
                raise ConfigError(
                    f"remove({name!r}): a stage and a source have this name: give the source "
                    f"another one, by name="
                )
            if number is not None:
                self._remove_source(name, number)
                return
            if stage is None:
                names = [*(stage.name for stage in self._graph.stages), *self._sources.names]
                known = ", ".join(map(repr, names)) or "none"
                raise ConfigError(
                    f"remove({name!r}): there is no such stage or source, but {known}"
                )
            self._changing.remove(stage)

    def mistakes(
        self, shards: int | None = None, address: str | None = None
    ) -> Sequence[ConfigError]:
        """All that would be refused when it is run. Nothing is run, read or opened for it.

        :param shards: as of :meth:`run_sharded`, if it is to be run so: then also what cannot be
            over shards; None: it is not
        :param address: as of :meth:`run_sharded`; whether there is a cluster is not looked at
        """
        found: list[ConfigError] = []
        stages, declared = self._plan(found.append)
        if self._checkpoint is not None:
            # What shards read themselves is asked by them.
            read = [one for one in declared if shards is None or partitions_in(one[0]) is None]
            check_kept(stages, read, self._sources.called, found.append)
        if shards is not None and self._graph.stages:
            sources = self._sources.routed
            found += refusals_of(self._name, self.stages, sources, shards, address, Pipeline)
            for route in self._partitioned:
                try:
                    check_empty(route, route.into)
                except ConfigError as error:
                    found.append(error)
        return found

    @property
    def _partitioned(self) -> Sequence[Route]:
        """Where the rows of sources go whose partitions shards read by themselves."""
        return [
            route for source, route in self._sources.routed if partitions_in(source) is not None
        ]

    def _plan(
        self, refuse: Callable[[ConfigError], None] = _raise, of: Sequence[Route] | None = None
    ) -> tuple[Mapping[AnyStage, RunnerConfig], Sequence[tuple[Any, int, Route]]]:
        """The stages in order with how they behave, and the sources with the unit of each.

        :param of: only these ways of sources; None: all
        """
        if not self._graph.stages:
            refuse(ConfigError(f"pipeline {self._name!r} has no stages: add one by stage()"))
        fed_by = self._graph.upstreams()
        sources: list[tuple[Any, int, Route]] = []
        for source, route, given in self._sources.ways:
            if of is not None and route not in of:
                continue
            readers = self._graph.readers(route.into)
            if not readers:
                refuse(
                    ConfigError(
                        f"{route.origin}: no stage reads {brief(route.into)}, which its rows "
                        f"enter: give it to one as data="
                    )
                )
                continue
            beside = [other.into for other in self._sources.routes_of(route.number)]
            try:
                said = group_unit_of(source, beside, given)
                unit = unit_of(source, route.into, said, readers)
            except ConfigError as error:
                refuse(error)
                continue
            assert unit is not None  # its readers have one
            if isinstance(source, AnyUnit):
                source.count_in(unit)
            sources.append((source, unit.nanos, route))
        return configs(fed_by), sources

    def draw(self) -> Drawing:
        """Its sources, data, stages and sinks, as they hang together.

        :return: an SVG, as text, which a notebook shows as a picture
        """
        from run_task.pipeline._drawing import picture

        given_name = self._sources.given_name
        sources = [(given_name(route), source, route) for source, route in self._sources.routed]
        return picture(self._name, sources, self._graph.stages)

    def show(self) -> LiveCharts:
        """Charts of its numbers, in a notebook, which move while it runs::

            charts = pipeline.show()  # as the last line of a cell; before it runs, or while it does
            running = asyncio.create_task(pipeline.run())  # in the next

        Each number that a task gives has a chart of the latest 300 windows; of a stage by key, it
        shows the lowest, the median and the highest of all keys. They can be zoomed and paused, and
        stand still once the pipeline has ended. This needs the extra ``notebook``.

        :return: the charts, which a notebook shows
        :raises ConfigError: if the extra is not installed
        :raises RunTaskError: if the pipeline ends
        """
        from run_task.pipeline._show import LiveCharts

        return LiveCharts(self)

    # History

    def run_sharded(self, shards: int, address: str | None = None) -> None:
        """Run live until it is shut down, or at its end, as :meth:`run_sync` does, over shards.

        Stages by key are run in shards, each with some of the keys: their rows and their states.
        Stages without keys are run in this process, which also reads the sources, writes to the
        sinks and makes the checkpoints: they see what all shards gave for a window, together. So
        results are those of one process, to the bit, with any number of shards, which may be
        another one in each run.

        A shard that is gone is started again, elsewhere if need be, with the rows that are retained
        and the states as of the last window. Windows wait for it, up to the ``upstream_timeout`` of
        their stage; one that has waited for so long is given without the keys of that shard, and
        names it in :attr:`DataSet.behind`.

        What tasks give and hold, and what comes of it, is pickled between this process and the
        shards: a cluster is trusted as one's own machines are.

        :param shards: how many shards there are
        :param address: of a cluster of Ray: ``"auto"`` for the one of this machine, ``"ray://..."``
            or ``"host:port"`` for another, ``"local"`` for one that is started for this run. None:
            shards are processes of this machine, without Ray
        :raises ConfigError: before it runs, if it cannot be run so: there are more shards than
            there can be keys, a task cannot be sent to a shard, there is no such cluster, it has
            other versions than this process, or what a task by key sees depends on the rows of
            other keys. The message names the culprit and the cure
        :raises RunTaskError: if it has run before
        :raises Exception: what made it end, if it was no shutdown
        :raises KeyboardInterrupt: after the shutdown, if it was Ctrl-C that began it; as any
            shutdown, it may come while shards are started, and then nothing is run
        """
        with self._changing.lock:
            self._plan()
            cluster = self._cluster_for(shards, address)
            partitioned = self._partitioned
            for route in partitioned:
                check_empty(route, route.into)
        self._cluster = cluster
        with (
            shut_down_on_sigterm(self.shutdown),
            places_alone(list(map(series_of, partitioned))),
            started(cluster, self._is_shut_down) as there,
        ):
            if there:
                self._changing.cluster = cluster
                self.run_sync()

    def _is_shut_down(self) -> bool:
        return self._wish.phase >= Phase.STOPPING

    def _cluster_for(self, shards: int, address: str | None) -> Cluster:
        sources = self._sources.routed
        return cluster_for(self._name, self.stages, sources, shards, address, Pipeline)

    def replay_sharded(
        self,
        shards: int,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        address: str | None = None,
    ) -> Replay:
        """As :meth:`replay`, over shards: they are there from the first result that is asked for
        until the last, or until it is closed.

        :param shards: as of :meth:`run_sharded`
        :param start: as of :meth:`replay`
        :param end: as of :meth:`replay`
        :param address: as of :meth:`run_sharded`
        :return: as of :meth:`replay`, with the same results
        :raises ConfigError: as of both; what only shows once they are started, when the first
            result is asked for
        """
        return self._go_through(start, end, None, self._cluster_for(shards, address))

    def replay(self, start: TimeLike | None = None, end: TimeLike | None = None) -> Replay:
        """Run over the history that the sources have, as fast as the machine goes.

        The time is that of the rows. Every stage runs every window, from the first that holds a row
        to the last that does, which may be some of those that overlap, and, to a stage that is fed
        by another, that hold its results. So one that ends before the first row's begins is given
        if a row comes, within its ``grace``, that it holds. Results are given, and written to the
        stage's sinks, which are flushed in the end and stay open. The replay has copies of the
        shared data, as it is when it begins, and leaves the data itself alone; so a pipeline can be
        replayed any number of times, also while it runs live. What a run or resume has entered is
        not in them: data that rows and results enter begins as it was before that. With the same
        rows, and tasks that keep nothing to themselves from one window to the next, results are the
        same to the bit, with any executor and any number of workers.

        Without a source, it goes through the rows that a ``TimeSeries`` has been filled with.

        Where the standard error is a terminal, and rich is installed, a bar shows how far it is.

        :param start: windows that end by then are left out; rows before are still read.
            A datetime with a time zone, or a numpy.datetime64, or an int in the unit of the stages'
            intervals
        :param end: windows that start from then on are left out; of windows that overlap, those
            whose last interval does
        :return: an iterator of the name of a stage and a DataSet of it, as they are computed; its
            ``of(stage)`` gives the DataSets of one stage. Who leaves before the end calls its
            ``close()``, which flushes the sinks. Its ``summary`` has the counts of rows and
            windows, and the time
        :raises ConfigError: if a source has no history, as an async one, a time is not clear, or
            the start is after the end; or if a sink holds results of a stage in another unit, or of
            another version of a task; or if the pipeline was run or resumed, and it is not known
            any more what data was like before, since there was something in it
        :raises TaskError: with ``OnError.RAISE``, when a task gave no result
        """
        return self._go_through(start, end, None)

    def resume(
        self,
        sink: DurableSink,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
    ) -> Replay:
        """Go on after a run that was killed: replay what the sources have and the sink has not.

        Each stage goes on with the last window of it that the sink holds, and with those before
        that may have lacked rows, if the sources had fewer then: as far back as its ``window`` and
        its ``grace``, and the ``window`` of each stage that feeds it. They are written again.
        Windows before are run again only where other stages are fed by them, and are not written.
        So the sink ends up as if nothing had happened. The shared data takes part itself, so that
        the pipeline can be run live afterwards: with the sources that have no history, such as
        ``polling``, for the rows of the others are in the data by then.

        :param sink: the sink that knows how far the stages had come
        :param start: as for :meth:`replay`
        :param end: as for :meth:`replay`
        :return: as of :meth:`replay`
        :raises ConfigError: if the sink does not know that, or is no stage's, or rows of an earlier
            run or resume are in the data, or as for :meth:`replay`
        """
        if self._checkpoint is not None:
            raise ConfigError(
                f"resume({brief(sink)}): pipeline {self._name!r} has checkpoints, and goes on from "
                f"the last one when it is run: leave this call out, or checkpoint="
            )
        if not callable(getattr(sink, "last", None)):
            raise ConfigError(f"resume({brief(sink)}): this sink does not tell what it holds")
        if not any(sink in stage.sinks for stage in self._graph.stages):
            raise ConfigError(
                f"resume({brief(sink)}): no stage writes to this sink: add it by sink()"
            )
        return self._go_through(start, end, sink)

    def recompute(
        self,
        stage: str | AnyStage,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
    ) -> RecomputeSummary:
        """Compute windows of a stage again, and put their results in the place of those that its
        sinks hold: after a task was corrected, or rows were. From any thread, also while it runs.

        ::

            pipeline.recompute("bars", start=datetime(2026, 3, 29, tzinfo=UTC),
                               end=datetime(2026, 3, 30, tzinfo=UTC))

        The windows are those of a :meth:`replay` of all, to the bit: it is one, over data of its
        own, from the first row on, so that states are as they were, of this stage and those that
        feed it. Only results of this stage are written, and only to sinks that are
        :class:`~run_task.sinks.DurableSink`: what else they hold stays, and what they hold of keys
        and windows that there are no more is taken out. Others, such as callbacks and webhooks, are
        told nothing. Nor do results enter other data: stages that are fed by this one are
        recomputed by themselves, in their order. Windows behind the last row that sinks hold are
        computed, too, as windows without rows, if an end is given, or the pipeline runs.

        It reads sources that can be read again, and journals; of a source that cannot, the rows
        that a ``TimeSeries`` still has. While it runs live, windows that the stage has not given
        yet are left to it, and the others are written by the sinks' own threads, so that none of
        the two comes in between. The run is not changed by it: its states, data and checkpoints go
        on as they were.

        It returns once all is written and lasts. If it is broken off, by a kill, say, call it
        again. With another ``version=`` of a task than the sinks have results of, what lies outside
        of the range counts as of this version in the end, and until then no run goes on from it.

        :param stage: the stage, or its name
        :param start: windows that end by then are left out; as for :meth:`replay`, an int being in
            the unit of this stage
        :param end: windows that start from then on are left out; of windows that overlap, those
            whose last interval does
        :return: how many windows were computed, and how many rows were replaced
        :raises ConfigError: before anything is written: if there is no such stage, none of its
            sinks can replace what it holds, or the windows cannot be computed, since a source
            cannot be read again, or rows are no longer there; the message names it, and the cure
        :raises RunTaskError: if the pipeline comes to its end meanwhile
        :raises TaskError: with ``OnError.RAISE``, when a task gave no result
        """
        with self._changing.lock:
            found = self._stage_of(stage, "recompute")
            durable = [sink for sink in found.sinks if isinstance(sink, DurableSink)]
            if not durable:
                told = ", ".join(map(brief, found.sinks)) or "none"
                raise ConfigError(
                    f"recompute({found.name!r}): it has no sink that holds results which could be "
                    f"replaced, but {told}: give it one, such as an SqlSink, or use replay()"
                )
            start_ns, end_ns = span(start, end, [found])
            is_running = self._changing.is_running
            if self._run is not None and not is_running:
                raise RunTaskError(
                    f"recompute({found.name!r}): pipeline {self._name!r} has run and closed its "
                    f"sinks: make a new one"
                )
            planned, declared = self._plan()
            origins = origins_of(found, planned, declared, self._before, is_running=is_running)
            origins.stage.sinks = durable
            run = self._run if is_running else None
            given = NEVER if run is None else run.given_until_ns(found)
            part = WantedWindows(origins.stage, start_ns, end_ns, given)
            origins.check(part)
            copies = origins.copies()
            fates = self._sources.fates_again(origins.sources, origins.declared)
        return recomputed(
            *(self._name, found, durable, origins, copies, part, fates),
            *(self._changing.policy_of, self._changing.refusals, run),
        )

    def _stage_of(self, stage: str | AnyStage, method: str) -> AnyStage:
        """A stage of this pipeline.

        :raises ConfigError: if there is no such stage
        """
        name = stage.name if isinstance(stage, BaseStage) else stage
        found = self._graph.find(name)
        if found is None or (isinstance(stage, BaseStage) and found is not stage):
            names = ", ".join(repr(one.name) for one in self._graph.stages) or "none"
            raise ConfigError(f"{method}({brief(stage)}): there is no such stage, but {names}")
        return found

    def _note_before(self) -> None:
        """Note what data is like before the pipeline changes it."""
        if self._before is None:
            stages = self._graph.stages
            data: list[Any] = [read for stage in stages for read in stage.inputs]
            data += [route.into for stage in stages for route in stage.routes]
            self._before = Before([*data, *(route.into for _, route in self._sources.routed)])

    def _go_through(
        self,
        start: TimeLike | None,
        end: TimeLike | None,
        resumed: DurableSink | None,
        cluster: Cluster | None = None,
    ) -> Replay:
        ways_out: dict[int, Delivery] = {}

        def has_all(sink: Sink, stage: str, _given_up: object) -> bool:
            return ways_out[id(sink)].has_all(stage)

        with self._changing.lock:
            planned, declared = self._plan()
            if cluster is not None:
                self._cluster = cluster
                planned = over_shards(cluster, planned, has_all)
            # As they are now, whatever is changed while the replay is iterated over.
            stages = {copy.copy(stage): config for stage, config in planned.items()}
        sources = with_history(declared, is_resumed=resumed is not None)
        start_ns, end_ns = span(start, end, stages)
        sinks = list({id(sink): sink for stage in stages for sink in stage.sinks}.values())
        begin(sinks, self._name, list(stages))
        ways_out |= {
            id(sink): Delivery(sink, self._changing.policy_of(sink), self._changing.refusals)
            for sink in sinks
        }

        def held(stage: AnyStage) -> int | None:
            last = resumed.last(stage.name) if resumed in stage.sinks and resumed else None
            return None if last is None else last * stage.interval.unit.nanos

        data: list[Any] = [read for stage in stages for read in stage.inputs]
        entered = [route.into for _, _, route in sources]
        entered += [route.into for stage in stages for route in stage.routes]
        data += entered
        copies: Copies | None = None
        if resumed is None:
            begun: Mapping[int, Any] = {}
            try:
                if self._before is not None:
                    begun = self._before.begun(entered)
            except ConfigError as error:
                raise ConfigError(f"replay(): {error}") from None
            if cluster is not None:
                sources, begun = replayed_by_shards(
                    cluster, sources, begun, planned, self._sources.policy
                )
            copies = Copies(data, begun)
        elif not (self._before is None or self._before.is_unchanged(entered)):
            raise ConfigError(
                f"resume({brief(resumed)}): pipeline {self._name!r} was run or resumed before, so "
                f"that its data has rows of its sources, which would enter a second time: make a "
                f"new one"
            )
        check_rows(self._name, declared, sources, data)
        self._sources.take(sources)
        if resumed is not None:
            self._note_before()
            self._resumed.update(id(route) for _, _, route in sources)
            for source, _, _ in declared:
                if isinstance(source, Backfill):
                    source.resumed()
        fates = self._sources.new_fates(sources, live=False)
        ways = branched(sources, _itself)
        # Without sources, rows that are in a series already are all that there is.
        filled = () if declared else {id(read) for stage in stages for read in stage.inputs}
        if copies is None:
            for stage in stages:
                stage.states.clear()  # they are made anew from the first row on
            history = History(
                *(stages, ways, fates, _itself, _states_of), apart=_never, filled=filled
            )
        else:
            history = History(
                *(stages, ways, fates, copies.of, _new_states),
                apart=copies.is_apart,
                filled=filled,
            )
        for counts in fates:
            counts.begin()
        self._sources.are_replayed(sources, fates)
        results = history.run(start_ns, end_ns, held)
        if cluster is not None:
            results = within(cluster, results)
        telemetry = RowTelemetry.if_set_up(self._name, fates)
        written = write_results(
            self._name,
            results,
            list(ways_out.values()),
            history,
            self._changing.refusals,
            None if telemetry is None else telemetry.tell,
        )
        return Replay(written, list(planned), fates)

    # Live

    def _make_run(self) -> LiveRun:
        planned, declared = self._plan()
        stages = self._changing.spread(planned)
        sources: Sequence[RoutedSource]
        sources = [
            one
            for one in declared
            # What is in a journal is in the data then, and what comes is not.
            if id(one[2]) not in self._resumed or isinstance(one[0], Arriving | Backfill)
        ]
        self._sources.take(sources)
        self._note_before()
        if self._changing.cluster is not None:
            sources = [self._read_over(self._changing.cluster, one, stages) for one in sources]
        warn_of_late_rows(stages, sources)
        if declared and not sources:
            self.shutdown()  # it is at its end before it begins
        checkpointing: CheckpointSetup | None = None
        if self._checkpoint is not None:
            every, called = self._checkpoint_every, self._sources.called
            checkpointing, sources = going_on(
                *(self._checkpoint, every, self._name, stages, sources, called)
            )
        fates = self._sources.new_fates(sources, live=True)
        try:
            run = LiveRun(
                *(self._name, stages, sources, fates, self._clock, self._changing.refusals),
                self._changing.policy_of,
                lambda: tuple(self._graph.upstreams()),
                checkpointing,
            )
        except BaseException:
            if checkpointing is not None:
                checkpointing.keeper.close()
            raise
        self._sources.are_received(sources, fates)
        return run

    def _read_over(
        self,
        cluster: Cluster,
        routed: RoutedSource,
        stages: Mapping[AnyStage, RunnerConfig],
    ) -> RoutedSource:
        """A source as it is read live, where shards may read it by themselves."""
        source, unit_ns, route = routed
        if partitions_in(source) is None:
            return routed
        readers = [stages[stage] for stage in self._graph.readers(route.into)]
        on_bad_row = self._sources.policy(route).on_bad_row
        read = read_by_shards(cluster, source, series_of(route), on_bad_row, readers, live=True)
        return read, unit_ns, route

    def _repr_html_(self) -> str:
        from run_task.observe._html import BOLD, marked

        return f"<div>{marked(repr(self), BOLD)}<br>{self.draw()}</div>"

    def __repr__(self) -> str:
        names = ", ".join(stage.name for stage in self._graph.stages)
        return f"<Pipeline {self._name!r} of {len(self._sources)} sources and stages: {names}>"


def _states_of(stage: AnyStage) -> States:
    return stage.states


def _new_states(_stage: AnyStage) -> States:
    return States()


def _itself(shared: Any) -> Any:
    return shared


def _never(shared: Any) -> bool:
    """Others write to it, too, and read it."""
    return False
