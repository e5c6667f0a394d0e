"""Docstrings are written for editors, which read reStructuredText; the pages are Markdown."""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

_ROLE: Final = re.compile(r":(?:class|meth|func|attr|mod|exc):`(?P<short>~?)(?P<path>[\w.]+)`")
_LITERAL: Final = re.compile(r"^(?P<margin> *)(?P<text>.*?)::$", re.MULTILINE)


class Rest(griffe.Extension):
    """Turns roles into links, and ``::`` before indented code into what Markdown has for it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite a docstring as it is collected."""
        if obj.docstring is None:
            return

        def link(role: re.Match[str]) -> str:
            path = role["path"]
            shown = f"`{path.rpartition('.')[2] if role['short'] else path}`"
            target = _resolved(obj, path)
            # A name of our own that leads nowhere is a mistake, which the build reports.
            return f"[{shown}][{target}]" if target.startswith("run_task.") else shown

        text = _ROLE.sub(link, obj.docstring.value)
        obj.docstring.value = _LITERAL.sub(_without_colon, text)


def _without_colon(literal: re.Match[str]) -> str:
    text = literal["text"]
    return f"{literal['margin']}{text}:" if text else ""


def _resolved(obj: griffe.Object, path: str) -> str:
    """The full path of what a role names, seen from where its docstring stands."""
    head, dot, rest = path.partition(".")
    if head in obj.members:
        return f"{obj.path}.{path}"
    try:
        return obj.resolve(head) + dot + rest
    except griffe.NameResolutionError:
        return path
