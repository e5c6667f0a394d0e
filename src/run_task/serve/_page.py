"""The page, which shows in a browser what the API tells.

All of it is files of this package, by a fixed list of names: no part of a request's path is ever
the path of a file. They hold nothing of a pipeline, and so need no token.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from run_task.observe._web import web_file

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""What a browser may do for the page: run and load what comes from this service, and connect to it.
The icons of the table are a font and images that stand in its style sheets."""

_INDEX: Final = "index.html"

_OWN: Final = (
    _INDEX,
    "dom.js",
    "errors.js",
    "graph.js",
    "icon.svg",
    "keys.js",
    "main.js",
    "overview.js",
    "page.css",
    "requests.js",
    "series.js",
    "shards.js",
    "sources.js",
    "stage.js",
    "theme.js",
)

_VENDOR: Final = (
    "ag-grid-community.min.noStyle.js",
    "ag-grid.min.css",
    "ag-theme-quartz-no-font.min.css",
    "agGridQuartzFont.min.css",
    "dagre.min.js",
)

_SHARED: Final = ("base.css", "charts.css", "charts.js", "uPlot.iife.min.js", "uPlot.min.css")

_MEDIA: Final = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Asset:
    media: str
    tag: str
    plain: bytes
    zipped: bytes


def page() -> Sequence[BaseRoute]:
    """The routes of the page. What they answer holds nothing of a pipeline, and so needs no token:
    that comes by the API."""
    names = (*_OWN, *_VENDOR, *_SHARED)
    return [_route("/", _INDEX), *(_route(f"/{name}", name) for name in names if name != _INDEX)]


def _route(path: str, name: str) -> Route:
    async def answer(request: Request) -> Response:
        asset = await asyncio.to_thread(_asset, name)
        headers = {
            "cache-control": "no-cache",
            "content-security-policy": CSP,
            "etag": asset.tag,
            "vary": "accept-encoding",
        }
        if request.headers.get("if-none-match") == asset.tag:
            return Response(status_code=304, headers=headers)
        body = asset.plain
        if "gzip" in request.headers.get("accept-encoding", ""):
            body, headers["content-encoding"] = asset.zipped, "gzip"
        return Response(body, headers=headers, media_type=asset.media)

    return Route(path, answer, methods=["GET"])


@functools.cache
def _asset(name: str) -> _Asset:
    """A file with what is told of it; it is read and compressed once."""
    if name in _SHARED:
        plain = web_file(name)
    else:
        folder = files("run_task.serve").joinpath("page")
        place = folder.joinpath("vendor", name) if name in _VENDOR else folder.joinpath(name)
        plain = place.read_bytes()
    tag = f'"{hashlib.sha256(plain).hexdigest()[:24]}"'
    return _Asset(_MEDIA[name.rsplit(".", 1)[-1]], tag, plain, gzip.compress(plain, mtime=0))
