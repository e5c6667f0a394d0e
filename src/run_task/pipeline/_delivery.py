"""Results on their way into a sink, which may be away for a time.

What was written and not flushed is kept, for no sink says what is left of it once it has raised. It
is written again, in order: a window that comes again replaces itself, so that this does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from run_task.errors import SinkError, described
from run_task.observe._format import brief, seconds
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.pipeline._refusals import Omission, Refusals
from run_task.pipeline._refused_keys import RefusedKeys
from run_task.pipeline._sink_policy import SinkPolicy
from run_task.sinks._protocol import (
    BulkSink,
    DirectSink,
    DurableSink,
    Result,
    ResultBatch,
    Sink,
)
from run_task.sinks._spool import SpoolFolder
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet

_log = Log(__name__)

_MOST_KEPT: Final = 1_024
"""How many results are written without a flush at most, so that memory stays bounded."""

_MOST_IN_BATCHES: Final = 65_536
"""And how many by column, which take little memory."""


def slept(duration: float) -> bool:
    """Sleep.

    :param duration: how many seconds
    :return: whether to go on: yes
    """
    time.sleep(duration)
    return True


def _nobody(away: bool) -> None:
    """Nobody wants to know."""


class Delivery:
    """Writes results to a sink and flushes it, again and again where it raises, as its policy says.
    One thread at a time.

    :param sink: the sink
    :param policy: what was said of it
    :param refusals: counts the results that it does not get
    :param pause: waits for some seconds; returns whether to go on
    :param note_away: told when the sink has raised and is tried again, and when it works again
    """

    def __init__(
        self,
        sink: Sink,
        policy: SinkPolicy,
        refusals: Refusals,
        pause: Callable[[float], bool] = slept,
        note_away: Callable[[bool], object] = _nobody,
    ) -> None:
        self.sink = sink
        """The sink."""
        self._policy = policy
        self._refusals = refusals
        self._pause = pause
        self._note_away = note_away
        self._is_direct = isinstance(sink, DirectSink) and sink.takes_at_once
        self._kept: list[Result | ResultBatch] = []  # what was not flushed
        self._in_batches = 0  # how many results that are by column, at most
        self._taken = 0  # how many of these it has taken since it last failed
        self._is_over = False  # it has raised, and is tried no more
        self._in_a_row = 0  # failures, since it last worked or something was dropped
        self._is_away = False  # it has raised, and has flushed nothing since
        self._since = 0.0  # from when on, by the monotonic clock
        self._before = 0  # how many times it had raised before that
        self._raised = Recurrence()
        self._is_told = False
        self.written: int = 0
        """How many results it has flushed."""
        self.refused: int = 0
        """How many it could not store."""
        self.dropped: int = 0
        """How many it did not get, however often it was tried."""

    @property
    def failures(self) -> int:
        """How many times it has raised."""
        return self._raised.count

    @property
    def keeps_any(self) -> bool:
        """Whether there is something that it has not flushed."""
        return bool(self._kept)

    @property
    def not_taken(self) -> int:
        """How many results it has not taken that it was to be given."""
        return _count(self._kept[self._taken :])

    def write(self, result: Result) -> None:
        """Give it a result, and flush it if it was given many.

        :raises BaseException: what the sink raises, if it is of no more use
        """
        kept = self._kept
        kept.append(result)
        flush = len(kept) >= _MOST_KEPT
        if self._taken == len(kept) - 1 and not (flush or self._is_away):
            # As most often: it has taken all before, and there is nothing to do but to write.
            try:
                self._write_next()
            except BaseException as error:
                self._fail(error, flushing=False)
            else:
                return
        self._bring(flush=flush)

    def note_written(self) -> None:
        """Note that others have written a result."""
        self.written += 1

    def has_all(self, stage: str) -> bool:
        """Flush what it was given of a stage. Returns whether it is flushed; not: it has raised, as
        it is going to with the next result."""
        if any(one.stage == stage for one in self._kept):
            try:
                self.flush()
            except Exception:
                return False
        return True

    @property
    def takes_many(self) -> bool:
        """Whether it takes results by column."""
        return isinstance(self.sink, BulkSink) and not self._is_direct

    def write_many(self, batch: ResultBatch) -> None:
        """Give it results by column, and flush it if it was given many.

        :raises BaseException: what the sink raises, if it is of no more use
        """
        self._kept.append(batch)
        self._in_batches += len(batch)
        self._bring(flush=self._in_batches >= _MOST_IN_BATCHES)

    def flush(self) -> None:
        """Make what it was given last.

        :raises BaseException: what the sink raises, if it is of no more use
        """
        self._bring(flush=True)

    def close(self) -> None:
        """Close it, also if it is of no more use.

        :raises BaseException: what the sink raises
        """
        self.sink.close()
        self.written += _count(self._kept[: self._taken])
        del self._kept[: self._taken]
        self._taken = 0

    @contextmanager
    def replayed(self) -> Generator[None]:
        """A block in which a replay writes to it: it is flushed at its end, also if it fails."""
        letters, spool = self._policy.letters, self._policy.spool
        if letters is not None:
            letters.begin()
        try:
            if spool is not None:
                self._empty(SpoolFolder(spool, f"sink {brief(self.sink)}"))
            yield
        finally:
            try:
                if self._is_over:
                    self.sink.flush()  # what it may have, once
                else:
                    self.flush()
            finally:
                if letters is not None:
                    letters.flush()
                    letters.close()

    def _empty(self, spool: SpoolFolder) -> None:
        """Deliver what waits on disk of an earlier run."""
        with closing(spool):
            while (result := spool.take()) is not None:
                self.write(result)
            self.flush()
            spool.settle()

    def rest(self) -> list[Result]:
        """What it did not get or flush, which is kept no more."""
        rest, self._kept, self._taken = self._kept, [], 0
        return list(_each(rest))

    def _bring(self, *, flush: bool) -> None:
        while True:
            flushing = False
            try:
                while self._taken < len(self._kept):
                    self._write_next()
                if flush or self._is_away:  # one that has raised works again once it has flushed
                    flushing = True
                    self.sink.flush()
                    self.written += _count(self._kept)
                    self._taken = self._in_batches = 0
                    self._kept.clear()
            except BaseException as error:
                self._fail(error, flushing=flushing)
            else:
                if self._is_away:
                    self._recover()
                return

    def _fail(self, error: BaseException, *, flushing: bool) -> None:
        """See what to do about an error: return to try again.

        :raises BaseException: the error, if it is not tried again
        """
        self._is_over = True
        self._follow_policy(error, flushing=flushing)
        self._is_over = False

    def _write_next(self) -> None:
        result = self._kept[self._taken]
        if isinstance(result, ResultBatch):
            self._write_batch(result)
            return
        try:
            self.sink.write(result)
        except SinkError as error:
            if isinstance(self.sink, DurableSink) and not isinstance(result, _Nothing):
                self._write_rest(result, error)
                return
            del self._kept[self._taken]
            if not isinstance(result, _Nothing):
                self.refused += 1
                self._omit(Omission.REFUSED, [result], str(error))
        else:
            self._take()

    def _take(self) -> None:
        """The sink has taken the next one."""
        if self._is_direct:
            del self._kept[self._taken]
            self.written += 1
        else:
            self._taken += 1

    def _write_rest(self, result: Result, error: SinkError) -> None:
        """Write what is left of a result that the sink has refused: it without some keys, or
        nothing, which takes out what is there of an earlier one."""
        keys = RefusedKeys(self.sink, result)
        rest = keys.written()
        if rest is None:
            self._kept[self._taken] = _Nothing.of_window(result)
            self.refused += 1
            self._omit(Omission.REFUSED, [result], str(error))
            return
        self._kept[self._taken] = rest
        self._take()
        for key, problem in keys.problems.items():
            self._omit(Omission.REFUSED, [keys.refused(key)], str(problem))

    def _write_batch(self, batch: ResultBatch) -> None:
        sink: Any = self.sink
        try:
            sink.write_many(batch)
        except BaseException as error:  # each is then refused, or dropped, by itself
            self._kept[self._taken : self._taken + 1] = batch
            if not isinstance(error, SinkError):
                raise
        else:
            self._taken += 1

    def _follow_policy(self, error: BaseException, *, flushing: bool) -> None:
        """As :meth:`_fail`."""
        self._in_a_row += 1
        if not self._is_away:
            self._since, self._before = time.monotonic(), self._raised.count
        since = self._raised.happen()
        failed_at, retry = self._taken, self._policy.followed
        if flushing:
            self._taken = 0
        if not self._policy.tries_again(error, flushing=flushing):
            raise error
        if retry.is_over(self._in_a_row):
            if not self._policy.drops:
                raise error
            # Of several that it took, it is not known which one it cannot flush.
            found = slice(None) if flushing else slice(failed_at, failed_at + 1)
            results = list(_each(self._kept[found]))
            del self._kept[found]
            self._taken = self._in_a_row = 0
            self._is_away = True
            self.dropped += len(results)
            if not results:
                return
            times = f"{retry.attempts} attempt{'' if retry.attempts == 1 else 's'}"
            self._omit(Omission.DROPPED, results, f"it raised in {times}: {described(error)}")
            return
        self._taken = 0
        self._is_away = True
        self._note_away(True)
        wait = retry.wait_after(self._in_a_row)
        if since:
            self._is_told = True
            more = (
                "" if since == self._raised.count == 1 else f", {self._raised.count:,} times by now"
            )
            _log.warning(
                "%s raised%s, and is tried again in %s, while results wait: %s",
                *(brief(self.sink), more, seconds(wait), described(error)),
            )
        if not self._pause(wait):
            raise error

    def _recover(self) -> None:
        passed, times = time.monotonic() - self._since, self._raised.count - self._before
        if self._is_told:
            _log.warning(
                "%s works again, after %d failure%s in %s",
                *(brief(self.sink), times, "" if times == 1 else "s", seconds(passed)),
            )
        self._in_a_row, self._is_told, self._is_away = 0, False, False
        self._note_away(False)

    def _omit(self, why: Omission, results: list[Result], detail: str) -> None:
        self._refusals.note(why, self.sink, results, detail, self._policy.letters)


class _Nothing(Result):
    """In the place of a result that was refused: nothing is left there of an earlier one."""

    __slots__ = ()

    @classmethod
    def of_window(cls, refused: Result) -> _Nothing:
        """What is written in the place of a result."""
        dataset: AnyDataSet = DataSet(refused.window, {}, interval=refused.dataset.interval)
        if isinstance(refused.dataset, KeyedDataSet):
            by = refused.dataset.by
            dataset = KeyedDataSet(refused.window, by, interval=refused.dataset.interval)
        return cls(*refused._replace(dataset=dataset))


def _count(kept: Iterable[Result | ResultBatch]) -> int:
    """How many results there are."""
    return sum(
        len(one) if isinstance(one, ResultBatch) else not isinstance(one, _Nothing) for one in kept
    )


def _each(kept: Iterable[Result | ResultBatch]) -> Iterator[Result]:
    """Results one by one."""
    for one in kept:
        if isinstance(one, ResultBatch):
            yield from one
        elif not isinstance(one, _Nothing):
            yield one
