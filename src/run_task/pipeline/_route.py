"""A way into shared data: of a source's rows, or of a stage's results."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final

from run_task.data import Closed, Writable
from run_task.errors import ConfigError, add_note
from run_task.observe._format import brief
from run_task.pipeline._result_faults import ResultFaults
from run_task.tasks._tick_results import TickResults
from run_task.time._wall_time import WallClock

_MOST_NOTES: Final = 10
"""Of how many errors of a DataSet a message says that they are there."""


@dataclass(frozen=True)
class Route:
    """A way into shared data.

    :param origin: what leads there, for messages: a source or a stage
    :param into: the data
    :param ingest: called with what may be changed of it, and with what enters; None: a row with
        its timestamp is appended
    :param in_order: whether what enters is a row that is stamped with the end of its window
    :param number: of the source, among those that were declared: one may go several ways
    :param clock: what shows timestamps that name no time zone; None: they are refused
    :param faults: what becomes of results that cannot enter; None: whoever lets them enter is told
    """

    origin: str
    into: Writable[Any]
    ingest: Callable[[Any, Any], object] | None
    in_order: bool = False
    clock: WallClock | None = None
    number: int = -1
    faults: ResultFaults | None = None

    @classmethod
    def checked(
        cls,
        origin: str,
        into: Any,
        ingest: Any,
        *,
        in_order: bool = False,
        zone: str | tzinfo | None = None,
        number: int = -1,
    ) -> Route:
        """A route, if it can be one.

        :param origin: what leads there, for messages
        :param in_order: whether what enters is a row that is stamped with the end of its window
        :param zone: what timestamps mean that name no time zone; None: what the data says
        :param number: of the source
        :raises ConfigError: if something about it cannot work
        """
        if not callable(getattr(into, "write", None)):
            raise ConfigError(
                f"{origin}: into={brief(into)} has no write(): give an RwLock, an Atom, a "
                f"TimeSeries, or other data that can be written"
            )
        if ingest is not None and not callable(ingest):
            raise ConfigError(f"{origin}: ingest={ingest!r} is no function of (data, what enters)")
        if zone is None:
            zone = getattr(into, "zone", None)
        clock = None if zone is None else WallClock(zone)
        return cls(origin, into, ingest, in_order, clock, number)

    def enter(self, target: Any, what: Any) -> None:
        """Let results enter. Those that cannot cost themselves, unless it was said otherwise.

        :param target: what may be changed of the data
        :param what: what enters
        :raises BaseException: what ``ingest`` raises, if it was said so
        """
        assert self.ingest is not None
        try:
            self.ingest(target, what)
        except (Exception, SystemExit) as error:
            add_note(error, f"in the ingest of {self.origin}")
            # Asked by what both have in common, which leaves nothing unknown to the checkers.
            errors = what.error_list() if isinstance(what, TickResults) else ()
            for failed in itertools.islice(errors, _MOST_NOTES):
                add_note(error, f"of a DataSet without this result: {failed}")
            if self.faults is None or not self.faults.takes(what, error):
                raise

    @property
    def holds_end(self) -> bool:
        """Whether the window that ends at a row's timestamp holds it, so that the row comes before
        a window that is due then."""
        return ends_with_rows(self.into)

    def leads_to(self, data: object) -> bool:
        """Whether this is the data that it leads into."""
        return self.into is data


def ends_with_rows(data: object) -> bool:
    """Whether windows over some data hold the rows that are stamped with their end."""
    return getattr(data, "closed", None) is Closed.RIGHT


def targets_of(where: str, into: Any, ingest: Any) -> list[tuple[Any, Any]]:
    """The data that a source's rows enter, each with its ingest.

    :param where: the source, for messages
    :param into: some data, or a tuple of several
    :param ingest: an ingest, or a tuple of as many
    :raises ConfigError: if they do not fit together
    """
    if type(into) is not tuple:
        if isinstance(ingest, tuple):
            raise ConfigError(
                f"{where}: ingest={ingest!r} is of several data, and into={brief(into)} is one: "
                f"give a tuple of as many, or one function"
            )
        return [(into, ingest)]
    several: tuple[Any, ...] = into  # pyright: ignore[reportUnknownVariableType]  of what, is looked at
    if not several:
        raise ConfigError(f"{where}: into=(): a tuple of data has one at least")
    ingests: tuple[Any, ...] = (None,) * len(several) if ingest is None else ingest
    if not isinstance(ingests, tuple) or len(ingests) != len(several):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
        raise ConfigError(
            f"{where}: into= has {len(several)} data: give ingest= a tuple of as many, each a "
            f"function of (data, row), or None where rows enter a TimeSeries as they are"
        )
    if len({id(one) for one in several}) < len(several):
        raise ConfigError(f"{where}: into= has the same data twice: give each once")
    return list(zip(several, ingests))
