"""URLs as they may be shown: without what could be a secret in them."""

from __future__ import annotations

import re
from typing import Final

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):(?!\\)")
_USER: Final = re.compile(r"(?P<begin>[A-Za-z][A-Za-z0-9+.\-]+:/*).*@", re.DOTALL)
_PLAIN: Final = re.compile(r"[\w.\-+:/\\\[\]~ %$,*]*")


def url_shown(text: str) -> str:
    """A URL without what stands before an ``@``, in a query, or where nobody knows what it is.

    What is no URL comes back as it is.
    """
    if "://" not in text and not (_SCHEME.match(text) and "@" in text):
        return text
    text = _USER.sub(r"\g<begin>...@", text)
    end = min((text.find(mark) for mark in "?#;&=" if mark in text), default=len(text))
    shown = text[:end]
    scheme, colon, rest = shown.partition(":")
    place = rest.replace("...@", "", 1)
    if not _PLAIN.fullmatch(place) or _may_hold_a_password(place):
        return f"{scheme}{colon}//..."
    return shown if end == len(text) else f"{shown}..."


def _may_hold_a_password(place: str) -> bool:
    """Whether something other than a port follows a colon, as where an ``@`` was left out."""
    host = place.lstrip("/").partition("/")[0]
    if host.startswith("[") or place.startswith("///"):
        return False
    _, colon, port = host.partition(":")
    return bool(colon) and not port.isdigit()
