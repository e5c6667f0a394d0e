"""Things as messages name them: a list of a million rows is not spelled out."""

from __future__ import annotations

import reprlib
from typing import Any, Final

_repr: Final = reprlib.Repr()
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 2
_repr.maxstring = _repr.maxother = 200


def brief(thing: Any) -> str:
    """Its repr, or the beginning of it."""
    return _repr.repr(thing)
