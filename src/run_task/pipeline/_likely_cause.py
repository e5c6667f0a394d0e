"""Why most rows of a source go the wrong way: what is most often wrong then, in words."""

from __future__ import annotations

from typing import Final

from run_task.observe._format import seconds
from run_task.sources._paced import Paced
from run_task.sources._partitioned import Partitioned, partitions_in
from run_task.sources._protocol import about
from run_task.time._interval import TimeUnit

_HOUR: Final = 3600.0
_QUARTER: Final = 900.0
_FURTHEST: Final = 14.5 * _HOUR
"""How far the zones of the world lie from UTC, in seconds, and a little more."""

_ABOUT: Final = 120.0
"""How many seconds a difference may be off a whole number of quarters of an hour."""

_DAY: Final = 24 * _HOUR

_NEAR: Final = 0.2
"""By which part of the time since 1970 a time may be off, for it to be one in another unit."""


def of_times(stamp_ns: int, present_ns: int, unit_ns: int) -> str | None:
    """What explains that rows are stamped far from the present.

    :param stamp_ns: the time of one of them, in nanoseconds since the Unix epoch
    :param present_ns: the time of the run when it came
    :param unit_ns: how many nanoseconds the unit of its timestamp has
    :return: the likely cause and its cure; None: none is known
    """
    if present_ns <= 0:
        return None
    off = (stamp_ns - present_ns) / 1e9
    side = "ahead of" if off > 0 else "behind"
    timestamp = stamp_ns // unit_ns
    for unit in TimeUnit:
        if unit.nanos != unit_ns and abs(timestamp * unit.nanos / present_ns - 1) < _NEAR:
            return (
                f"the unit of their timestamps: they would be of about now in {unit.name.lower()}; "
                f"say so by unit="
            )
    quarters = round(abs(off) / _QUARTER)
    if quarters >= 2 and abs(off) <= _FURTHEST and abs(abs(off) - quarters * _QUARTER) < _ABOUT:
        return (
            f"the time zone: they are stamped about {quarters / 4:g} h {side} the clock, as local "
            f"times are that are taken for UTC"
        )
    if off < -_DAY:
        return (
            f"that they are a recording: they are of {-off / _DAY:,.0f} days before the run; "
            f"replay it, or play it by paced()"
        )
    if off < 0:
        return (
            f"that they waited on their way, as what a broker kept (start='earliest'), or the "
            f"clock that stamps them: they are {seconds(-off)} behind the run. A live run has "
            f"windows from now on, or from where a checkpoint or resume() goes on; for those "
            f"before, collect the rows and replay() them"
        )
    return f"the clock that stamps them: it is {seconds(off)} ahead of that of the run"


def of_parts(source: object, backward: int = 0) -> str | None:
    """What explains that rows come late of a source whose parts are read one after another, such as
    the files of a folder.

    :param source: the source
    :param backward: how many of those late are older than the late one before
    :return: the likely cause and its cure; None: it has no such parts, or it is another one
    """
    if partitions_in(source) is not None:
        return None  # these are brought together by time
    read: object = source.about().recording if isinstance(source, Paced) else source
    if not isinstance(read, Partitioned) or about(read).endless:
        return None
    count = len(read.partitions())
    if count < 2 or backward >= count:
        return None
    return (
        f"that its {count:,} files or parts are read one after another, and each begins before "
        f"the one before it ends: bring their rows in order by sort=True or, where each has all "
        f"rows of some keys, by partitioned=True"
    )


def of_order(backward: int, late: int) -> str:
    """What explains that rows of a recording come late.

    :param backward: how many of those late are older than the late one before
    :param late: how many are late
    """
    if backward > late // 2:
        return "the order of the rows: the newest come first; sort them by time"
    return (
        "the order of the rows: they are not sorted by time; sort them, or give the stages a "
        "grace= as long as rows may be out of order"
    )


MALFORMED: Final = (
    "the format: that of the timestamps, the unit= and the types of the columns= that were said, "
    "or the names of the columns"
)

UNSEEN: Final = (
    "the retention of the data: it is shorter than the windows of those who read it, or they are "
    "computed too late; retain more"
)
