"""The pages of the documentation, as a reader goes through them.

The code blocks of a page are run from top to bottom, in a folder of the page's own:

- ``python`` goes on where the block above left off, and may ``await``, as in a notebook;
- anything with a ``title`` is a file of that name, and not run by itself; ``title="a, continued"``
  goes on at the end of the file ``a``, which stands above;
- a ``title="FILE, with LIBRARY"`` is a program that is run at once where that library is installed,
  here or for the bench, and else skipped with a word, together with what it prints;
- ``sh`` is run by bash; ``pip install`` only looks whether there is such a thing to install;
- ``text`` is what the block above has printed, ``...`` standing for anything;
- a block without a language is a drawing.

There is nothing else, so a block cannot be left out by a word that nobody knows.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import functools
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from sybil import Document, Example, Region
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

_INFO: Final = re.compile(
    r'(?P<language>\w*)(?: title="(?P<title>[^"]+?)(?:, with (?P<needs>\w+))?")?[ \t]*$\n',
    re.MULTILINE,
)
_CONTINUED: Final = ", continued"
_SHELL_TAKES: Final = 60.0
"""How many seconds the commands of one block may take."""
_BENCH: Final = Path(__file__).parents[2] / ".venv-bench/bin/python"
"""Where ``make bench`` has installed the peers."""


class Blocks:
    """Finds the blocks of a page, in the order in which they stand there."""

    def __init__(self) -> None:
        self._lexer = RawFencedCodeBlockLexer(_INFO)

    def __call__(self, document: Document) -> Iterable[Region]:
        fences = list(self._lexer(document))
        opened = len(re.findall(r"^ *```\S", document.text, re.MULTILINE))
        assert opened == sum(bool(fence.lexemes["language"]) for fence in fences), (
            f"{document.path}: a block says something besides its language and title"
        )
        for fence in fences:
            language, title = fence.lexemes["language"], fence.lexemes["title"]
            if not language:
                continue
            fence.parsed = fence.lexemes["source"]
            if fence.lexemes["needs"]:
                fence.evaluator = _run_with
            else:
                fence.evaluator = _write if title else _EVALUATORS[language]
            yield fence


def _source(example: Example) -> str:
    return textwrap.dedent(example.parsed)


def _write(example: Example) -> None:
    title = str(example.region.lexemes["title"])
    file = Path(title.removesuffix(_CONTINUED))
    if title.endswith(_CONTINUED):
        file.write_text(f"{file.read_text()}\n\n{_source(example)}")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_source(example))


def _run_with(example: Example) -> str | None:
    """Run a program that needs a library which a reader of the page may have, and we may not."""
    _write(example)
    library = example.region.lexemes["needs"]
    python = _python_with(library)
    if python is None:
        example.namespace["_printed"] = None
        pytest.skip(f"{library} is installed neither here nor for the bench")
    return _run([python, example.region.lexemes["title"]], example)


@functools.cache
def _python_with(library: str) -> str | None:
    """The first interpreter that has a library, or None."""
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({library!r}) is None)"
    for python in map(str, [sys.executable, _BENCH]):
        found = shutil.which(python) is not None
        if found and subprocess.run([python, "-c", look], check=False).returncode == 0:
            return python
    return None


def _run_python(example: Example) -> None:
    above = "\n" * (example.line + example.parsed.line_offset)  # so that tracebacks tell the line
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(above + _source(example), example.path, "exec", flags, dont_inherit=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        awaits = eval(code, example.namespace)
        if awaits is not None:
            example.namespace["_loop"].run(awaits)
    example.namespace["_printed"] = printed.getvalue()


def _run_shell(example: Example) -> str | None:
    return _run(["bash", "-euo", "pipefail", "-c", _source(example)], example)


def _run(command: Sequence[str], example: Example) -> str | None:
    here = Path(__file__).parent
    path = os.pathsep.join(
        [str(here / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SHELL_TAKES,
        check=False,
        env={**os.environ, "PATH": path, "COLUMNS": "100"},
    )
    example.namespace["_printed"] = done.stdout
    return None if done.returncode == 0 else f"exit code {done.returncode}:\n{done.stdout}"


def _compare(example: Example) -> str | None:
    printed = example.namespace["_printed"]
    if printed is None:
        pytest.skip("what prints this was skipped")
    checker = doctest.OutputChecker()
    if checker.check_output(_source(example), printed, doctest.ELLIPSIS):
        return None
    wanted = doctest.Example("", _source(example))
    return checker.output_difference(wanted, printed, doctest.ELLIPSIS)


_EVALUATORS: Final = {"python": _run_python, "sh": _run_shell, "text": _compare}


def enter(namespace: dict[str, Any]) -> None:
    """Begin a page: a folder, and names as in a program that has just begun."""
    opened = contextlib.ExitStack()
    folder = opened.enter_context(tempfile.TemporaryDirectory())
    opened.enter_context(contextlib.chdir(folder))
    loop = opened.enter_context(asyncio.Runner())
    namespace.update(__name__="__main__", _opened=opened, _loop=loop)


def leave(namespace: dict[str, Any]) -> None:
    """End a page, with nothing left running."""
    namespace["_opened"].close()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("run-task")]
    assert not left
