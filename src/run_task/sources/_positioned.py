"""Sources that know how far they have been read, and go on from there after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

Position: TypeAlias = Any
"""How far a source has been read: None, a bool, an int, a float, a text, or a list or a mapping
with texts as keys of these, so that JSON can keep it. What it means is the source's own affair."""

UNKNOWN: Final[Position] = object()
"""In the place of a position: the source has given nothing yet."""


@runtime_checkable
class Positioned(Protocol):
    """A source that says how far it has been read.

    A pipeline keeps positions in its checkpoints, or has a journal in the place of them. After any
    end, also a kill, it seeks the last one that was kept, and reads on.
    """

    @property
    def position(self) -> Position:
        """Behind the row, or the batch, that was given last; before the first one, where it begins.

        Asked by the thread, or in the event loop, that iterates, while it has a row and has not
        asked for the next. It may be asked for each row, so it is to be quick. What was returned
        does not change later.
        """
        ...

    def seek(self, position: Position, /) -> None:
        """Begin right behind a position of an earlier run.

        Called at most once before each time it is iterated over, and never while that goes on: of
        an earlier run before the first time, and, where it failed and is started again, behind what
        it gave last. Where it is
        the broker that remembers, and gives again what was not committed, there is nothing to do.

        :param position: what :attr:`position` was
        :raises SourceError: if it cannot go on from there, as where the rows are no longer kept;
            the message says from where on there are rows
        """
        ...

    def commit(self, position: Position, /) -> None:
        """Take note that all rows up to a position are kept: none of them is asked for again.

        Called from any thread, with positions that go forward, also while it is iterated over and
        after that has ended, but not after ``close()`` has returned. A broker is told then, so that
        it may forget them. A commit that is lost does no harm: it is followed by a later one, or
        rows come twice after a restart.

        :param position: what :attr:`position` was
        """
        ...

    @property
    def lag(self) -> int | None:
        """How many rows there are at least that it has not given yet. 0: it has caught up. None: it
        does not know, as while it is disconnected. Asked from any thread, some times a second."""
        ...


@runtime_checkable
class Merging(Protocol):
    """A source of several streams, which brings their rows together by time while it is behind."""

    def wait_for_streams(self, seconds: float, /) -> None:
        """Wait for a stream that gives nothing for so long, and then go on without it.

        :param seconds: as long as windows wait for the source
        """
        ...


@runtime_checkable
class Renamed(Protocol):
    """A source that goes on in another place when the one that it reads gets another name, so that
    whoever reads again from an earlier position may come by others than before."""

    def position_before(self, left: int, /) -> Position:
        """Where it goes on, if the last rows of what was given last were not.

        :param left: how many
        """
        ...

    def check_passed(
        self, before: Sequence[Position], position: Position, behind: Sequence[Position], /
    ) -> None:
        """See whether who reads again comes by the same places.

        :param before: where it was, up to the row at which an earlier reader was at ``position``
        :param behind: where it was behind that row; nothing: that is where it is
        :raises SourceError: if not
        """
        ...


def merging(source: Any) -> Merging | None:
    """The source that brings streams together, if there is one: itself, or what it is around."""
    while source is not None:
        if isinstance(source, Merging):
            return source
        source = getattr(source, "inner", None)
    return None


def positioned(source: Any) -> Positioned | None:
    """The source that has the positions of what is read, if there is one: itself, or what it reads
    for others, which it names as its ``positioned``.

    Its position is not asked for, since that is for who iterates to do.
    """
    if callable(getattr(source, "seek", None)) and callable(getattr(source, "commit", None)):
        return source  # type: ignore[no-any-return]  # as just seen
    found: Positioned | None = getattr(source, "positioned", None)
    return found
