"""The tree keeps its promises: layers, no import circles, and private modules marked as such."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import run_task

ROOT = Path(run_task.__file__).parent

LAYERS = (
    "_public",
    "_window",
    "_version",
    "errors",
    "_extras",
    "observe",
    "sync",
    "time",
    "columnar",
    "tasks",
    "data",
    "shared",
    "aggregates",
    "expressions",
    "executors",
    "runner",
    "sources",
    "cluster",
    "sinks",
    "pipeline",
    "serve",
    "testing",
    "cli",
)
"""Each imports only from those before it."""


def modules() -> Mapping[str, Path]:
    """Every module by its dotted name; a package goes by its own."""
    found: dict[str, Path] = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The modules of this library that a module imports, inside functions and for typing too."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names if node.module in MODULES else ():
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def layer(name: str) -> str:
    """Under which entry of the root a module stands."""
    return name.split(".")[1]


def test_each_layer_imports_only_from_those_before_it() -> None:
    wrong = [
        f"{name} imports {other}"
        for name in MODULES
        if name != "run_task"
        for other in imports(name)
        if other == "run_task" or LAYERS.index(layer(other)) > LAYERS.index(layer(name))
    ]
    assert not wrong


def test_no_module_is_imported_by_what_it_imports() -> None:
    # An import of `a.b._c` runs `a` and `a.b` first, which see to their own order; here counts
    # which module asks for which.
    graph: dict[str, Sequence[str]] = {name: [*imports(name)] for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        raise AssertionError(" <- ".join(circle)) from None


def test_layers_are_all_there_is() -> None:
    assert {layer(name) for name in MODULES if name != "run_task"} == set(LAYERS)


def test_what_is_no_package_and_not_for_users_is_marked_private() -> None:
    public = [
        name
        for name, path in MODULES.items()
        if path.name != "__init__.py" and not name.rpartition(".")[2].startswith("_")
    ]
    assert public == ["run_task.errors"]


def types_of(path: Path) -> Iterator[str]:
    """The classes and type aliases of a module."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
            yield ast.unparse(node.target)


def test_no_two_types_have_one_name() -> None:
    where: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for called in types_of(path):
            where.setdefault(called.removeprefix("_"), []).append(name)
    assert {called: found for called, found in where.items() if len(found) > 1} == {}


def test_the_table_of_the_architecture_names_every_module() -> None:
    page = (ROOT.parent.parent / "docs" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| `([\w/]+)` \| [^|]* \| ([^|]*) \|$", page, re.MULTILINE))
    told: set[str] = set()
    for package, modules in rows.items():
        folder = "" if package == "run_task" else package
        told |= {f"{folder}{name}" for name in re.findall(r"`([a-z_]+)`", modules)}
    there = {
        str(path.relative_to(ROOT).with_suffix("").with_name(path.stem.removeprefix("_")))
        for path in MODULES.values()
        if path.name != "__init__.py"
    }
    assert there - told == set()


def test_the_tables_of_modules_in_the_architecture_name_none_that_is_not_there() -> None:
    page = (ROOT.parent.parent / "docs" / "architecture.md").read_text()
    tables = re.findall(
        r"^\| module of `([\w/]+)` \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE
    )
    assert tables
    for folder, rows in tables:
        for name in re.findall(r"^\| (`.*?`) \|", rows, re.MULTILINE):
            for module in re.findall(r"`([\w/]+)`", name):
                path = module if "/" in module else f"{folder}{module}"
                assert (ROOT / f"{path}.py").exists(), path
