"""What polars and DuckDB raise, in a line of ours."""

from __future__ import annotations

import re
from typing import Any, Final

from run_task._extras import need

_LONGEST: Final = 400
"""How many characters of a message are told at most."""

_BEHIND: Final = re.compile(
    r"\n\s*\n|\.? You might need to add|\n(Resolved plan|This error occurred|Did you mean|LINE \d)"
)
"""Where a message begins to tell of plans and places, which are not the user's."""

_KIND: Final = re.compile(r"^[A-Z][A-Za-z -]+ Error: ")
"""What DuckDB begins with."""


def polars_faults() -> tuple[type[BaseException], ...]:
    """What an expression may raise: also what polars raises of a fault of its own, which is no
    Exception."""
    polars = need("polars", "polars")
    panic: Any = polars.exceptions.PanicException
    return Exception, panic


def in_short(error: BaseException) -> str:
    """What an error of another library says, on one line."""
    said = _KIND.sub("", str(error).strip())
    text = " ".join(_BEHIND.split(said, maxsplit=1)[0].split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
