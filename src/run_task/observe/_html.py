"""How things look in a notebook: small tables, without colours of their own except for errors.

Colours are inherited, so that they read on light and on dark ground; that of errors has about
the same contrast to white as to black, 4.4 and 4.7 to 1.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

from run_task.observe._format import brief

ERROR: Final = "color:#e0324b;font-weight:bold"
"""The style of what went wrong."""

BOLD: Final = "font-weight:bold"

_CELL: Final = "text-align:left;padding:2px 12px 2px 0"
_WIDEST: Final = 120
"""How many characters of a value are shown."""

_MOST_ITEMS: Final = 6
"""How many items of a collection are shown."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def value_text(value: object) -> str:
    """A value as the text of a cell."""
    return brief(value, items=_MOST_ITEMS, width=_WIDEST)


def marked(text: str, style: str) -> Markup:
    """Text in a style."""
    return Markup(f'<span style="{style}">{html.escape(text)}</span>')


def table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], style: str = BOLD
) -> str:
    """A table.

    :param title: what stands above it
    :param header: what stands above each column
    :param rows: the cells; all text is escaped that is not :class:`Markup`
    :param style: the title's
    """
    heads = "".join(f'<th style="{_CELL}">{html.escape(name)}</th>' for name in header)
    lines = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{_cell(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f"<div>{marked(title, style)}<table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(text)
