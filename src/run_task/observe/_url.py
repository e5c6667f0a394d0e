"""URLs as they may be shown: without what could be a secret in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):(?!\\)")
_ONE_SLASH: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]+::?)+/")
_USER: Final = re.compile(r"(?P<begin>[A-Za-z][A-Za-z0-9+.\-]+:/*).*@", re.DOTALL)
_LINK: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(?:$|://)")
_BEFORE_AT: Final = re.compile(r".*:.*@", re.DOTALL)
_END: Final = re.compile("[?#;&=]|%(?:23|26|3B|3D|3F)", re.IGNORECASE)
"""Where a query begins, or a fragment, also by its code."""

_PLAIN: Final = re.compile(r"[\w.\-+:/\\\[\]~ %$,*]*")


def looks_like_url(text: str) -> bool:
    """Whether a text is a URL, or one that is written wrongly, rather than a path.

    So is one of which a slash is gone, as in a ``Path`` of a URL, and what has a colon and an
    ``@`` after it, unless it begins as a path does that is no relative one.
    """
    if "://" in text or _ONE_SLASH.match(text):
        return True
    if "@" not in text:
        return False
    if _SCHEME.match(text):
        return True
    begins_as_path = text[:1] in ("/", ".", "~", "\\") and not text.startswith("//")
    is_drive = text[1:3] in (":\\", ":/")
    return not begins_as_path and not is_drive and _BEFORE_AT.match(text) is not None


def url_shown(text: str) -> str:
    """A URL without what stands before an ``@``, in a query, or where nobody knows what it is.

    What is no URL comes back as it is.
    """
    if not looks_like_url(text):
        return text
    first, *others = text.split("::")
    if others and all(
        _LINK.match(other) for other in others
    ):  # one within another, as fsspec has it
        return "::".join(map(url_shown, (first, *others)))
    known = _USER.search(text)
    if known is not None:
        text = f"{text[: known.start()]}{known['begin']}...@{text[known.end() :]}"
    elif "@" in text:
        text = f"...{text[text.rindex('@') :]}"
    shown = _END.split(text, maxsplit=1)[0]
    scheme, colon, rest = shown.partition(":")
    place = rest.replace("...@", "", 1)
    if not _PLAIN.fullmatch(place) or _may_hold_a_password(place):
        return f"{scheme}{colon}//..."
    return shown if shown == text else f"{shown}..."


_WITHIN: Final = re.compile(r"""[A-Za-z][A-Za-z0-9+.\-]*://[^\s'"<>]+""")
"""A URL within a text."""

_SHORTEST: Final = 4
"""How many characters a value has at least that is taken for a secret: others stand in any text."""


def secrets_in(url: str, options: Mapping[str, Any]) -> list[str]:
    """What may be a secret of a URL, and of options beside it: texts that stand in no message.

    :param url: the URL, which may be written wrongly
    :param options: whatever else opens it; texts in it, also nested ones, are secrets
    """
    found = {url, *_texts(options)}
    begin, _, fragment = url.partition("#")
    begin, _, query = begin.partition("?")
    found |= {query, fragment, *(value for _, value in parse_qsl(query))}
    found |= {part.partition("=")[2] for part in re.split("[&;]", query)}
    found |= user_in(url)
    if "://" not in url:
        found.discard(url)
    return [one for one in found if len(one) >= _SHORTEST]


def user_in(url: str) -> set[str]:
    """What stands before the ``@`` of a URL, as a whole and by its parts, where it is not so short
    that it stands in any text."""
    user, at, _ = url.partition("://")[2].rpartition("@")
    name, _, password = user.partition(":")
    return {one for one in (user, name, password) if at and len(one) >= _SHORTEST}


def redacted(text: str, secrets: Iterable[str]) -> str:
    """A text that somebody else wrote, without secrets, and with URLs as they may be shown."""
    spellings: set[str] = set()
    for secret in secrets:
        spellings |= {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
        spellings |= {unquote(secret), unquote_plus(secret), repr(secret)[1:-1]}
    for spelling in sorted(filter(None, spellings), key=len, reverse=True):
        text = text.replace(spelling, "***")
    return _WITHIN.sub(lambda found: url_shown(found[0]), text)


def _texts(options: object) -> Iterator[str]:
    """All texts in something that is nested, but the keys of mappings."""
    items: Any = options
    if isinstance(options, str):
        yield options
    elif isinstance(options, bytes):
        yield options.decode(errors="replace")
    elif isinstance(options, Mapping):
        for value in items.values():
            yield from _texts(value)
    elif isinstance(options, list | tuple | set):
        for value in items:
            yield from _texts(value)


def _may_hold_a_password(place: str) -> bool:
    """Whether something other than a port follows a colon, as where an ``@`` was left out."""
    host = place.lstrip("/").partition("/")[0]
    if host.startswith("[") or place.startswith("///"):
        return False
    _, colon, port = host.partition(":")
    return bool(colon) and not port.isdigit()
