"""The shards of a run as its driver has them: what they are told, and what becomes of them.

There is one order of all that shards are told, under one lock: so rows come before the windows that
see them, in each shard. A shard that is gone is started again by a thread of its own, and is told
all anew: the driver has the rows that are retained, and the states as of the last window.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Final, NamedTuple

from run_task.cluster._bytes import Packing, of_bytes
from run_task.cluster._feed import Feed
from run_task.cluster._few_keys import FewKeys
from run_task.cluster._link import Link, ShardLost, Transport
from run_task.cluster._member import AskedWindow, ShardMember
from run_task.cluster._messages import (
    ReadRows,
    RowsRead,
    RunWindow,
    SentRows,
    SeriesSetup,
    ShardFailed,
    ShardReply,
    ShardRequest,
    StageSetup,
)
from run_task.cluster._partitions import (
    AskedRows,
    Missing,
    PartitionKeys,
    PartitionOnShards,
    PartitionSource,
    WhenAway,
)
from run_task.cluster._shard import versions
from run_task.cluster._telemetry import ShardTelemetry
from run_task.cluster._windows import (
    LOOK,
    MOST_MISSED,
    GivenUp,
    NoAnswer,
    ShardAnswer,
    StageOnShards,
    WindowRun,
    result_of,
)
from run_task.data import TimeSeries
from run_task.data.series._tap import mark_of
from run_task.data.series._view import placed
from run_task.errors import ConfigError, SourceError, described
from run_task.observe._log import Log
from run_task.runner._stats import ShardStats

_log = Log(__name__)

_TRIES: Final = 3
"""How often a shard may go in one window, before this goes without its keys; or while it is
started, before the run is given up."""

_WAIT: Final = (0.1, 5.0)
"""How many seconds there are between two attempts to start a shard: at first, and at most."""


class _AskedOf(NamedTuple):
    life: int
    """Of the shard, in which it was asked."""

    calls: Sequence[Future[ShardReply]]
    """For windows that it had missed, and for the one that is due."""


class Cluster:
    """The shards of a run.

    :param name: of the pipeline, for threads and messages
    :param transport: where they are started
    :param count: how many there are
    :param packing: how values of the user are pickled
    :param on_other_machines: whether they may be on other machines than this process
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        count: int,
        packing: Packing | None = None,
        *,
        on_other_machines: bool = False,
    ) -> None:
        self.name: Final = name
        self.on_other_machines: Final = on_other_machines
        self.count: Final = count
        self.packing: Final = Packing() if packing is None else packing
        self._transport = transport
        self._members = [ShardMember(name, number, count) for number in range(count)]
        self._feeds: dict[int, Feed] = {}
        self._feed_of: dict[tuple[int, bool], Feed] = {}
        self._numbers = itertools.count()
        self._stages: set[StageOnShards] = set()
        self._few_keys: dict[str, FewKeys] = {}  # by the name of a stage
        self._calls = itertools.count()
        self._telemetry: ShardTelemetry | None = None
        self._partitions: list[PartitionOnShards] = []  # by number
        self._keys_of: dict[int, PartitionKeys] = {}  # by the id of what their rows enter
        self._changed = threading.Condition()  # all that shards are told comes under its lock
        self._closed = False
        self._is_unwanted: Callable[[], bool] = lambda: False
        self._ended = threading.Event()  # the same, for who waits without the lock
        self._threads: set[threading.Thread] = set()

    def start(
        self, is_unwanted: Callable[[], bool] = lambda: False, *, is_replay: bool = False
    ) -> bool:
        """Start the shards, all at once. One that dies meanwhile is started again, elsewhere if
        need be, some times. What was started is ended if it raises, also by Ctrl-C.

        :param is_unwanted: asked again and again, also while stages are set up: whether nobody
            wants them any more
        :param is_replay: whether they go through a history
        :return: whether they are there; or else nobody wants them, and they are ended
        :raises ConfigError: if one cannot be started, or has other versions than this process
        """
        self._is_unwanted = is_unwanted
        try:
            if not self._transport.open(is_unwanted) or not self._start_all(is_unwanted):
                self.close()
                return False
        except BaseException:
            self.close()
            raise
        self._telemetry = ShardTelemetry.if_set_up(self.name, lambda: self.stats, is_replay)
        thread = f"run-task {self.name} rows"
        ahead = threading.Thread(target=self._send_ahead, name=thread, daemon=True)
        self._threads.add(ahead)
        ahead.start()
        return True

    def _start_all(self, is_unwanted: Callable[[], bool]) -> bool:
        pool = ThreadPoolExecutor(min(self.count, _AT_ONCE), f"run-task {self.name} start")
        try:
            pending = {pool.submit(self._start_one, member) for member in self._members}
            while pending:
                if is_unwanted():
                    return False
                done, pending = wait(pending, LOOK, FIRST_EXCEPTION)
                for future in done:
                    future.result()
            return True
        finally:
            if not all(member.link for member in self._members):
                self._ended.set()  # the others need not be waited for
            pool.shutdown(cancel_futures=True)

    def _start_one(self, member: ShardMember) -> None:
        link = self._checked(self._started(member), member)
        with self._changed:
            if not self._closed:
                member.link, member.life = link, 1
                return
        link.end()

    def _started(self, member: ShardMember) -> Link:
        number, tried = member.number, 0
        while True:
            tried += 1
            try:
                return self._transport.start(number, self._ended)
            except ShardLost as error:
                if tried == _TRIES or self._ended.wait(_WAIT[0]):
                    why = f"it was lost {tried} times: {error}"
                    raise self._not_started(member, why) from error
                again = "%s was lost while it was started, and is started again: %s"
                member.tell(again, error)
            except Exception as error:
                raise self._not_started(member, described(error)) from error

    def _not_started(self, member: ShardMember, why: str) -> ConfigError:
        return ConfigError(f"pipeline {self.name!r}: {member.called} cannot be started: {why}")

    def _checked(self, link: Link, member: ShardMember) -> Link:
        """A shard that has the versions of this process. One that has others is ended."""
        place = link.place
        for what, version in versions().items():
            if (theirs := place.versions.get(what)) != version:
                link.end()
                raise ConfigError(
                    f"pipeline {self.name!r}: shard {member.number} on {place.node} has {what} "
                    f"{theirs}, and this process has {version}: install the same on each node"
                )
        return link

    def _send_ahead(self) -> None:
        """Send what has come since, while no window asks for it, once it is much: or else it would
        wait here for a window that may be long in coming. Tell how the shards do, and bring back
        those that are gone, too."""
        told_at = time.monotonic()
        while not self._ended.wait(_LOOK_AHEAD):
            if self._telemetry is not None and time.monotonic() - told_at >= _TOLD_EVERY:
                told_at = time.monotonic()
                self._telemetry.tell()
            for member in self._members:
                member.look_at_signs()
                member.look_at_writing()
                link, life = member.link, member.life
                if link is not None and (why := link.ended) is not None:
                    self._is_gone(member, life, why)  # it is back before a window asks for it
            if not any(feed.waiting > _MUCH for feed in list(self._feeds.values())):
                continue
            with self._changed:
                for feed in self._feeds.values():
                    feed.take()
                for member in self._members:
                    if member.link is not None and member.feeds:
                        member.link.call(self._request(member, (), None))

    def close(self) -> None:
        """End all shards. Any number of times."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._ended.set()
            self._changed.notify_all()
            links = [member.link for member in self._members if member.link is not None]
            for member in self._members:
                member.link = None
            feeds = list(self._feeds.values())
        for feed in feeds:
            feed.close()
        for thread in list(self._threads):
            thread.join()
        for link in links:
            link.end()
        self._transport.close()
        if self._telemetry is not None:
            self._telemetry.tell()

    @property
    def stats(self) -> Mapping[str, ShardStats]:
        """How each shard has been doing. At any time, from any thread."""
        stages = list(self._stages)
        return {
            member.called: member.stats(stages, is_closed=self._closed) for member in self._members
        }

    def called(self, shard: int) -> str:
        """What a shard is called where people read it, and in ``behind``."""
        return self._members[shard].called

    # Stages

    def feed(self, series: TimeSeries, *, by_key: bool) -> Feed:
        """What shards are told of a series. To be given back by :meth:`leave`."""
        with self._changed:
            feed = self._feed_of.get((id(series), by_key))
            if feed is None:
                feed = Feed(next(self._numbers), series, self.count, by_key=by_key)
                feed.begin()
                self._feeds[feed.number] = self._feed_of[id(series), by_key] = feed
            feed.users += 1
            return feed

    def stage(
        self, setup: Callable[[int], StageSetup], begin: Callable[[int], bytes]
    ) -> StageOnShards:
        """A stage that shards are to run.

        :param setup: makes what shards are told, of the number of the stage
        :param begin: makes what a shard begins with, of the number of the shard
        """
        made = StageOnShards(setup(next(self._numbers)), begin)
        with self._changed:
            self._stages.add(made)
        return made

    def set_up(
        self, stage: StageOnShards, feeds: Collection[Feed], given_up: threading.Event
    ) -> Mapping[int, ShardReply]:
        """Have shards make a stage ready, before its first window is due: so no window, and nobody
        who is fed by it, waits until tasks are loaded and sinks are open. A shard that is gone, or
        goes meanwhile, does that with its first window.

        :param feeds: what it reads
        :param given_up: set: nobody wants it any more
        :return: what each shard answers, by its number
        """
        with self._changed:
            asked = [
                (member, member.life, self._ask_to_set_up(member, member.link, stage, feeds))
                for member in self._members
                if member.link is not None
            ]
        replies: dict[int, ShardReply] = {}
        slow_at = time.monotonic() + _SLOW
        for member, life, call in asked:
            while not call.done():
                wait([call], LOOK)
                if given_up.is_set() or self._closed or self._is_unwanted():
                    return replies
                if time.monotonic() > slow_at and not call.done():
                    slow_at = math.inf
                    slow = "%s loads the tasks of stage %r and opens its sinks, for %g s by now"
                    member.tell(slow, stage.name, _SLOW)
            try:
                replies[member.number] = call.result()
            except ShardLost as error:
                self._is_gone(member, life, error)
        return replies

    def _ask_to_set_up(
        self, member: ShardMember, link: Link, stage: StageOnShards, feeds: Collection[Feed]
    ) -> Future[ShardReply]:
        # Of the series it is not told yet which rows they have, nor of partitions where they begin:
        # that is not known before sources are started.
        new = [feed.number for feed in feeds if feed.number not in member.feeds]
        member.feeds.update(new)
        setup = stage.setup(member.number, member.life)
        return link.call(ShardRequest(self._series(new), (), (), (), setup, None))

    def _series(self, feeds: Sequence[int]) -> Sequence[SeriesSetup]:
        found = [self._feeds[number] for number in feeds]
        return [SeriesSetup(one.number, one.series.pattern, one.by_place) for one in found]

    def few_keys(self, stage: str) -> FewKeys:
        """What counts the keys of a stage: the same for all that run it, one after another."""
        return self._few_keys.setdefault(stage, FewKeys(stage, self.count))

    def renew(self, stage: StageOnShards, shard: int) -> None:
        """A shard is to go on with a stage from the states that this process has."""
        with self._changed:
            stage.renew(shard)

    def leave(self, stage: StageOnShards, feeds: Sequence[Feed]) -> None:
        """A stage is not run any more."""
        with self._changed:
            if self._closed:
                return
            for feed in feeds:
                feed.users -= 1
                if not feed.users:
                    feed.close()
                    del self._feeds[feed.number]
                    for key in [k for k, one in self._feed_of.items() if one is feed]:
                        del self._feed_of[key]
                    for member in self._members:
                        if feed.number in member.feeds:
                            member.feeds.discard(feed.number)
                            member.dropped.append(feed.number)
            for member in self._members:
                if stage.is_known(member.number, member.life):
                    member.gone.append(stage.number)
            self._stages.discard(stage)
        for member in self._members:
            member.forget(stage)

    # Partitions

    def partitions(
        self,
        series: TimeSeries,
        declared: Sequence[PartitionSource],
        bound: float,
        when_away: WhenAway,
    ) -> Mapping[str, PartitionOnShards]:
        """Have shards read the partitions of a source, which are dealt out to them in turn.

        :param series: what has the places of their rows
        :param declared: the partitions
        :param bound: how many seconds a shard that is gone is waited for at least
        :param when_away: what becomes of its rows then
        :return: what of each enters the series, by name
        """
        if (left := self.count - len(declared)) > 0:
            _log.warning(
                "%s: %d partition%s: fewer than the %d shards, of which %d %s nothing to read of "
                "it: give %d at most",
                *(declared[0].origin, len(declared), "" if len(declared) == 1 else "s"),
                *(self.count, left, "has" if left == 1 else "have", len(declared)),
            )
        with self._changed:
            keys = self._keys_of[id(series)] = PartitionKeys(series, self.count)
            made: dict[str, PartitionOnShards] = {}
            for one in declared:
                number = len(self._partitions)
                made[one.name] = PartitionOnShards(number, one, keys, self, bound, when_away)
                self._partitions.append(made[one.name])
            return made

    def keys_of(self, series: object) -> PartitionKeys | None:
        """Which partition has which keys of a series; None: its rows are of no partitions."""
        return self._keys_of.get(id(series))

    def ask(self, partition: PartitionOnShards) -> AskedRows | None:
        """Ask the shard of a partition for its next rows. Returns at once.

        :return: what is given to :meth:`answer`; None: the shard is gone
        """
        with self._changed:
            member = self._members[partition.number % self.count]
            if member.link is None:
                return None
            feed = self._feed_of.get((id(partition.keys.series), True))
            needed_from: int | None = None
            if feed is None:
                needed_from = partition.keys.series.oldest_to_come
            elif feed.number in member.feeds:  # else it is told later what has entered by now
                needed_from = feed.needed_from()
                feed.take()  # after that, so that it is told of all that has entered by then
            request = self._request(member, (), None, read=partition.next_rows(needed_from))
            return AskedRows(member.life, member.link.call(request))

    def answer(self, partition: PartitionOnShards, asked: AskedRows | None) -> RowsRead | Missing:
        """Wait for what a shard is asked for. One that goes is waited for until it is back, and
        asked again.

        :return: the rows, or why there are none
        :raises SourceError: if the shard was lost again and again while it read these rows, or is
            waited for no longer, where the run ends with that
        :raises Exception: what the shard raised
        """
        member = self._members[partition.number % self.count]
        tries = 0
        while not (self._closed or partition.closed.is_set()):
            if asked is not None:
                try:
                    reply = result_of(asked.call, partition.closed)
                except ShardLost as error:
                    if partition.closed.is_set():
                        break
                    tries += 1
                    self._is_gone(member, asked.life, error)
                    if tries >= _TRIES:
                        raise SourceError(
                            *(partition.declared.origin, None, None),
                            f"{member.called} was lost {tries} times while it read "
                            f"on in {partition.declared.name!r} ({error})",
                        ) from error
                else:
                    if isinstance(reply, ShardFailed):
                        cause, note = of_bytes(reply.error)
                        cause.add_note(note)
                        raise cause
                    assert isinstance(reply, RowsRead)
                    return reply
            with self._changed:
                if member.link is None and not self._closed:
                    left = member.gone_since + partition.bound - time.monotonic()
                    if left <= 0 and partition.when_away is WhenAway.GO_ON:
                        return Missing.AWAY
                    if left <= 0 and member.failed_starts >= _TRIES:
                        raise self._stays_away(member, partition)
                    self._changed.wait(LOOK if left <= 0 else min(left, LOOK))
            asked = self.ask(partition)
        return Missing.CLOSED

    def _stays_away(self, member: ShardMember, partition: PartitionOnShards) -> SourceError:
        for_s = time.monotonic() - member.gone_since
        return SourceError(
            *(partition.declared.origin, None, None),
            f"{member.called}, which reads {partition.declared.name!r}, was gone for "
            f"{for_s:.0f} s, and could not be started again {member.failed_starts} times: it was "
            f"{member.why_gone}: give it a place to run, and replay again",
        )

    # Windows

    def run(self, run: WindowRun, bound: float, given_up: threading.Event) -> Sequence[ShardAnswer]:
        """Have all shards run a window.

        A shard that goes meanwhile is waited for until it is back, and asked again.

        :param run: the window
        :param bound: how many seconds to wait for a shard that is gone
        :param given_up: set: nobody wants the results any more
        :return: what became of it in each shard
        """
        with self._changed:
            for feed in run.views:
                self._feeds[feed].take()
            calls = [self._ask(member, run) for member in self._members]
        return [
            self._answer(member, asked, run, bound, given_up)
            for member, asked in zip(self._members, calls)
        ]

    def _answer(
        self,
        member: ShardMember,
        asked: _AskedOf | None,
        run: WindowRun,
        bound: float,
        given_up: threading.Event,
    ) -> ShardAnswer:
        tries = 0
        while True:
            if asked is not None:
                try:
                    *before, reply = [result_of(call, given_up) for call in asked.calls]
                except ShardLost as error:
                    tries += 1
                    self._is_gone(member, asked.life, error)
                    if tries >= _TRIES:
                        why = f"its shard was lost {tries} times in this window ({error})"
                        return ShardAnswer(NoAnswer(why))
                else:
                    member.note_given(run.stage, [*before, reply])
                    if before:
                        self._has_caught_up(member, run.stage, len(before))
                    return ShardAnswer(reply, before)
            with self._changed:
                while member.link is None and not self._closed and not given_up.is_set():
                    # Since it went: one that stays away costs one wait, and not one a window.
                    left = member.gone_since + bound - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(min(left, LOOK))
                if member.link is None:
                    self._miss(member, run, is_told=not given_up.is_set())
                    return ShardAnswer(NoAnswer(None))
                for feed in run.views:
                    self._feeds[feed].take()
                asked = self._ask(member, run)

    def _miss(self, member: ShardMember, run: WindowRun, *, is_told: bool) -> None:
        if is_told and not member.is_missed:
            member.is_missed = True
            member.tell("windows go without %s: %s", member.why_gone)
        if not run.stage.miss(member.number, run):
            member.tell(
                "%s has missed more than %d windows, with which it does not catch up",
                MOST_MISSED,
            )

    def _has_caught_up(self, member: ShardMember, stage: StageOnShards, windows: int) -> None:
        with self._changed:
            stage.caught_up(member.number)
        member.tell("%s has caught up with %d windows that went without it", windows)

    def _ask(self, member: ShardMember, run: WindowRun) -> _AskedOf | None:
        """Ask a shard for a window, and for those before that it has missed, under the lock; None:
        it is gone."""
        if member.link is None:
            return None
        runs = *run.stage.missed(member.number), run
        calls = [self._call(member, member.link, each) for each in runs]
        number, asked = next(self._calls), time.monotonic()
        member.asked[number] = AskedWindow(asked, run.told)

        def note(call: Future[ShardReply]) -> None:
            member.asked.pop(number, None)
            if not call.cancelled() and call.exception() is None:
                member.seconds = time.monotonic() - asked

        calls[-1].add_done_callback(note)
        return _AskedOf(member.life, calls)

    def _call(self, member: ShardMember, link: Link, run: WindowRun) -> Future[ShardReply]:
        number = member.number
        setup = run.stage.setup(number, member.life)
        new = [feed for feed in run.views if feed not in member.feeds]
        member.feeds.update(new)
        marks: dict[int, int] = {}
        apart: dict[int, SentRows] = {}
        for number_of_feed, view in run.views.items():
            feed = self._feeds[number_of_feed]
            mark = mark_of(placed(view)[1])
            if mark is not None and feed.knows_view(number, mark):
                marks[number_of_feed] = mark
            else:
                apart[number_of_feed] = feed.part_of(view, number)
        begin = run.stage.begin(number, member.life)
        of = run.stage.number, run.window
        window = RunWindow(*of, marks, apart, run.values, run.sinks, begin)
        return link.call(self._request(member, new, setup, window))

    def _request(
        self,
        member: ShardMember,
        new: Sequence[int],
        setup: StageSetup | None,
        window: RunWindow | None = None,
        read: ReadRows | None = None,
    ) -> ShardRequest:
        """What a shard is asked, with all that it is still to be told."""
        number, feeds = member.number, self._feeds
        changes = [(feed, told) for feed in member.feeds if (told := feeds[feed].told(number))]
        member.note_sent(changes)
        gone, member.gone = member.gone, []
        dropped, member.dropped = member.dropped, []
        own = self._read_by(member)
        partitions = [one.setup() for one in own if one.number not in member.reads]
        member.reads.update(one.number for one in own)
        series = self._series(new)
        return ShardRequest(series, changes, gone, dropped, setup, window, partitions, read)

    # A shard that is gone

    def _is_gone(self, member: ShardMember, life: int, why: ShardLost) -> None:
        with self._changed:
            if member.life != life or member.link is None or self._closed:
                return
            link = member.lose(why)
            thread = threading.Thread(
                target=self._bring_back,
                args=(member, link, why),
                name=f"run-task {self.name} shard {member.number}",
                daemon=True,
            )
            # Those that are over are still to end, which who closes the cluster waits for.
            self._threads = {thread, *(other for other in self._threads if other.is_alive())}
            thread.start()

    def _bring_back(self, member: ShardMember, before: Link, why: ShardLost) -> None:
        node, how = before.place.node, "ended" if isinstance(why, GivenUp) else "gone"
        member.tell("%s on %s is %s, and is started again: %s", node, how, why, node=node)
        pause = _WAIT[0]
        before.end()
        reads_again = any(one.declared.position is not None for one in self._read_by(member))
        while True:
            try:
                link = self._checked(self._transport.start(member.number, self._ended), member)
                if reads_again and not self._has_read_again(member, link):
                    reads_again = False  # it fails, which its next window tells
                    link.end()
                    continue
            except Exception as error:
                if self._ended.is_set():
                    return
                member.why_away = f"; it cannot be started again: {described(error)}"
                member.failed_starts += 1
                again = "%s cannot be started again, and is tried once more in %g s: %s"
                member.tell(again, pause, described(error))
            else:
                break
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, pause):
                    return
            pause = min(2 * pause, _WAIT[1])
        with self._changed:
            if self._closed:
                link.end()
                return
            if not reads_again:
                self._begin_life(member)
            member.link = link
            self._changed.notify_all()
        member.tell("%s is back, on %s", link.place.node)

    def _begin_life(self, member: ShardMember) -> None:
        """A shard is to be told all anew."""
        member.begin_life()
        for feed in self._feeds.values():
            feed.take()
            feed.restart(member.number)
            feed.take()

    def _has_read_again(self, member: ShardMember, link: Link) -> bool:
        """Have a shard read again what it had of partitions without end, before it is back: while
        their broker is away, windows wait for that as for a shard that is.

        :return: whether it has; or else it cannot
        :raises ShardLost: if it goes meanwhile, or nobody wants it any more
        """
        try:
            with self._changed:
                self._begin_life(member)
                new = [*self._feeds]
                member.feeds.update(new)
                call = link.call(self._request(member, new, None))
            while not call.done():
                wait([call], LOOK)
                if self._ended.is_set():
                    raise ShardLost("nobody wants it any more")
            return not isinstance(call.result(), ShardFailed)
        except BaseException:
            link.end()
            raise

    def _read_by(self, member: ShardMember) -> Sequence[PartitionOnShards]:
        return self._partitions[member.number :: self.count]


_LOOK_AHEAD: Final = 0.2
"""How many seconds there are between two looks at what has come since."""

_TOLD_EVERY: Final = 1.0
"""How many seconds there are between two times that OpenTelemetry is told how shards do."""

_SLOW: Final = 5.0
"""After how many seconds it is told that a stage is not ready yet."""

_MUCH: Final = 50_000
"""How many rows and views may wait for a window."""

_AT_ONCE: Final = 32
"""How many shards are started at once."""
