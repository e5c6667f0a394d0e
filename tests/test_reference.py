"""The reference has every public name."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
from tests.conftest import ROOT

import run_task
from run_task import (
    aggregates,
    data,
    executors,
    expressions,
    pipeline,
    runner,
    serve,
    sinks,
    sources,
    sync,
    tasks,
    testing,
    time,
)

PAGES = [page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md")]
PACKAGES = (
    run_task, aggregates, data, executors, expressions, pipeline, runner, serve, sinks, sources,
    sync, tasks, testing, time,
)  # fmt: skip
SHOWN = {name for page in PAGES for name in re.findall(r"^::: (\S+)", page, re.MULTILINE)}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_has_an_entry(package: ModuleType) -> None:
    # A function that is called as its module is has to be named by both.
    missing = [
        name
        for name in package.__all__
        if getattr(run_task, name, None) is not getattr(package, name) or package is run_task
        if not SHOWN & {f"{package.__name__}.{name}", f"{package.__name__}.{name}.{name}"}
    ]
    assert not missing
