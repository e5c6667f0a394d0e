"""What browsers draw charts with: uPlot, and what is made of it here.

These files are served by a service, stand in reports, and go to notebooks. They are text, and
nothing of them comes from elsewhere.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Final

WEB_FILES: Final = (
    "base.css",
    "charts.css",
    "charts.js",
    "report.css",
    "report.js",
    "show.css",
    "show.js",
    "uPlot.iife.min.js",
    "uPlot.min.css",
)


@functools.cache
def web_file(name: str) -> bytes:
    """One of these files.

    :param name: one of :data:`WEB_FILES`
    :raises KeyError: if it is none of them
    """
    if name not in WEB_FILES:
        raise KeyError(name)
    return files("run_task.observe").joinpath("web", name).read_bytes()
