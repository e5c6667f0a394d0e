"""What users may import: which names there are, and what they and their docstrings say."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any

import pytest

PACKAGES = (
    "run_task",
    "run_task.aggregates",
    "run_task.data",
    "run_task.errors",
    "run_task.executors",
    "run_task.expressions",
    "run_task.pipeline",
    "run_task.runner",
    "run_task.serve",
    "run_task.sinks",
    "run_task.sources",
    "run_task.sync",
    "run_task.tasks",
    "run_task.testing",
    "run_task.time",
)


def exported(package: str) -> dict[str, Any]:
    module: ModuleType = importlib.import_module(package)
    if package == "run_task.errors":  # the one public module; all that it defines is public
        return {
            k: v for k, v in vars(module).items() if inspect.isclass(v) and issubclass(v, Exception)
        }
    return {name: getattr(module, name) for name in module.__all__}


def everything() -> Iterator[tuple[str, Any]]:
    """Every public class and function, once."""
    done: set[int] = set()
    for package in PACKAGES:
        for name, thing in exported(package).items():
            if isinstance(thing, type | FunctionType) and id(thing) not in done:
                done.add(id(thing))
                yield f"{package}.{name}", thing


EVERYTHING = dict(everything())


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_public_by_its_name_is_exported_and_sorted(package: str) -> None:
    if package == "run_task.errors":
        return
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__)
    public = {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and not isinstance(thing, ModuleType)
        and name != "TYPE_CHECKING"
    }
    assert public == set(module.__all__)


def test_every_error_is_at_the_root() -> None:
    root = exported("run_task")
    assert all(root.get(name) is thing for name, thing in exported("run_task.errors").items())


@pytest.mark.parametrize("name", EVERYTHING)
def test_it_says_that_it_is_of_a_public_package(name: str) -> None:
    thing = EVERYTHING[name]
    assert "._" not in thing.__module__
    assert getattr(importlib.import_module(thing.__module__), thing.__name__) is thing
    assert pickle.loads(pickle.dumps(thing)) is thing


def test_where_it_says_that_it_is_from_does_not_depend_on_what_is_imported_first() -> None:
    program = (
        "import run_task.sources, run_task.sinks, run_task.testing, run_task\n"
        "print(run_task.testing.VirtualClock, run_task.data.RwLock, run_task.sinks.SqlSink)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert re.findall(r"'(.*?)'", done.stdout) == [
        "run_task.VirtualClock", "run_task.RwLock", "run_task.sinks.SqlSink",
    ]  # fmt: skip


# Docstrings


def documented(thing: Any) -> Iterator[tuple[str, str | None, Any]]:
    """What of a class or function has a docstring, with its text and what is called."""
    if not isinstance(thing, type):
        yield thing.__name__, thing.__doc__, thing
        return
    yield thing.__name__, thing.__doc__, vars(thing).get("__init__")
    for name, member in vars(thing).items():
        function: Any = inspect.unwrap(getattr(member, "__func__", member))
        if not name.startswith("_") and isinstance(function, FunctionType):
            yield f"{thing.__name__}.{name}", inspect.getdoc(getattr(thing, name)), function


def parameters(function: Any) -> Sequence[str]:
    names = inspect.signature(function).parameters
    return [name for name in names if name not in ("self", "cls")]


@pytest.mark.parametrize("name", EVERYTHING)
def test_it_is_documented_with_the_parameters_that_it_has(name: str) -> None:
    for called, text, function in documented(EVERYTHING[name]):
        assert text, f"{called} has no docstring"
        told = re.findall(r":param \**(\w+):", text)
        if told and function is not None:
            assert told == parameters(function), called


@pytest.mark.parametrize("package", ["run_task", "run_task.sinks", "run_task.sources"])
def test_what_is_imported_on_demand_is_there_and_only_then(package: str) -> None:
    script = f"""
import sys, {package} as package
before = len(sys.modules)
assert set(package.__all__) <= set(dir(package))
later = [name for name in package.__all__ if name not in vars(package)]
assert later, "all is there already"
assert len(sys.modules) == before
for name in later:
    assert getattr(package, name) is vars(package)[name]
assert len(sys.modules) > before
try:
    package.nonsense
except AttributeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == f"module '{package}' has no attribute 'nonsense'\n"


def test_the_root_brings_no_pipeline_source_or_sink_before_it_is_asked_to() -> None:
    script = "import sys, run_task; print(*(m for m in sys.modules if m.startswith('run_task.')))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    packages = {name.split(".")[1] for name in done.stdout.split()}
    assert packages.isdisjoint(
        {"aggregates", "expressions", "pipeline", "sources", "sinks", "testing", "cli"}
    )


def test_a_class_is_of_the_root_whichever_way_it_is_imported() -> None:
    script = "from run_task.pipeline import Pipeline; print(Pipeline.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout == "run_task\n"
