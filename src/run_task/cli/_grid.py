"""Tables without lines, as all commands print them."""

from __future__ import annotations

from typing import Final

from rich.table import Table
from rich.text import Text

# Nothing but bold and the terminal's own red: that is readable on light and dark alike.
HEAD: Final = "bold"
BAD: Final = "bold red"


def grid(*columns: tuple[str, int]) -> Table:
    """A table.

    :param columns: the head of each, and its share of the room that is left: 0 for a number, which
        is as wide as it is
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True, header_style=HEAD)
    for name, ratio in columns:
        table.add_column(
            name,
            ratio=ratio or None,
            min_width=8 if ratio else None,
            justify="left" if ratio else "right",
            no_wrap=True,
            overflow="ellipsis",
        )
    return table


def cell(text: str) -> Text:
    """A text that is cut with an ellipsis where it is too long."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def count(number: int) -> Text:
    """A number of things that should be none."""
    return Text(f"{number:,}", BAD if number else "")
