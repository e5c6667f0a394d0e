"""A report as one file of HTML, which needs no other: what is told, and what draws it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from typing import Any, Final

from run_task.observe._web import web_file

_STYLES: Final = ("base.css", "charts.css", "uPlot.min.css", "report.css")

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main><p>Loading. This report needs JavaScript.</p></main>
<script type="application/json" id="told">{told}</script>
<script>{library}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def report_page(told: Mapping[str, Any]) -> str:
    """A report.

    A browser runs these scripts alone, and loads nothing: its policy tells their hashes.

    :param told: what ``report.js`` shows, as JSON has it; under ``title`` what it is called
    """
    style = "\n".join(_text(name) for name in _STYLES)
    library = _text("uPlot.iife.min.js")
    script = "\n".join(_text(name) for name in ("charts.js", "report.js"))
    policy = (
        f"default-src 'none'; script-src {_hash(library)} {_hash(script)}; "
        f"style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    )
    # No text of a block of JSON can end it, nor begin a comment, without a "<".
    block = json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        block = block.replace(character, f"\\u{ord(character):04x}")
    return _PAGE.format(
        policy=policy,
        title=html.escape(str(told["title"])),
        style=style,
        told=block,
        library=library,
        script=script,
    )


def framed(page: str) -> str:
    """A report in a frame of a notebook, which it cannot leave.

    :param page: the report
    """
    return (
        f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts" title="report" '
        f'style="width:100%;height:45rem;border:1px solid #8888"></iframe>'
    )


def _text(name: str) -> str:
    return web_file(name).decode("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
