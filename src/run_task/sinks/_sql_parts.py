"""Rows of a window that make way for others of some of its keys, where those of the rest stay."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from run_task.sinks._base import Recorded

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table

_AT_ONCE: Final = 500
"""How many keys a statement names: Oracle takes 1 000, and SQL Server 2 100 parameters."""


W = TypeVar("W", bound=Recorded)


def divided(windows: Iterable[W]) -> tuple[Sequence[W], Sequence[W]]:
    """Those windows that are all there is of them, and those of which others write a part."""
    whole: list[W] = []
    parts: list[W] = []
    for window in windows:
        is_part = window.elsewhere is None or len(window.elsewhere) > 0
        (parts if is_part else whole).append(window)
    return whole, parts


def make_way(
    connection: Connection,
    table: Table,
    of_window: ColumnElement[bool],
    key: ColumnElement[Any],
    own: Iterable[Any],
    elsewhere: Collection[Any] | None,
) -> None:
    """Take out of a table the rows of a window that are not of keys which others write.

    :param connection: the transaction
    :param table: the table
    :param of_window: whether a row is of the window
    :param key: the column of the key; NULL there is what is told of all keys
    :param own: the keys of the rows that come in their place
    :param elsewhere: the keys that others write; None: all but ``own``
    """
    from sqlalchemy import delete, select

    keys = set(own)
    if elsewhere is not None:  # what is there of keys that the window no longer has goes, too
        found = connection.execute(select(key).where(of_window).distinct()).scalars()
        keys = {one for one in found if one not in elsewhere}
    if None in keys:
        keys.remove(None)
        connection.execute(delete(table).where(of_window, key.is_(None)))
    named = sorted(keys)  # so that two transactions come to rows in one order
    for first in range(0, len(named), _AT_ONCE):
        some = named[first : first + _AT_ONCE]
        connection.execute(delete(table).where(of_window, key.in_(some)))
