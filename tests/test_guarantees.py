"""What the documentation guarantees is shown by tests, each of which is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent
PAGE: Final = (TESTS.parent / "docs" / "explanation" / "guarantees.md").read_text()
SHOWN: Final = re.compile(r"`([a-z-]+)(?:\[([a-z-]+)\])?`")
"""What names a test in a cell: what it is called on the page, and which of its cases."""


def cells() -> list[str]:
    """The cells of the tables that guarantee something."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    promises = [row[1:] for row in rows if row[0] not in ("source", "sink") and len(row) == 4]
    return [cell for row in promises for cell in row]


def named() -> dict[str, tuple[str, str]]:
    """The file and the function of each test that the page names."""
    found = re.findall(r"^- `([a-z-]+)`: `(test_\w+\.py)::(test_\w+)`$", PAGE, re.MULTILINE)
    return {name: (file, function) for name, file, function in found}


def test_each_cell_names_a_test_of_the_page() -> None:
    known = named()
    assert len(cells()) >= 63
    for cell in cells():
        names = [name for name, _ in SHOWN.findall(cell)]
        assert names, f"{cell!r} names no test"
        assert set(names) <= known.keys(), cell
    used = {name for cell in cells() for name, _ in SHOWN.findall(cell)}
    assert used == known.keys()


def test_the_tests_that_the_page_names_are_there_with_their_cases() -> None:
    cases = {pair for cell in cells() for pair in SHOWN.findall(cell)}
    for name, (file, function) in named().items():
        text = (TESTS / file).read_text()
        functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        assert function in [node.name for node in functions], name
        for case in (case for of, case in cases if of == name and case):
            # Cases are texts, in the file or in what says which kinds there are.
            beside = (TESTS / "support" / "feeds.py").read_text()
            assert f'"{case}"' in text + beside, f"{name}[{case}]"
