"""Runs the tests once more that have failed, one after another: ``python -m tests.support.again``.

Examples of a page of the documentation follow from one another, so that all of its page is run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest


def failed(root: Path) -> list[str]:
    """What is to be run: tests by their ids, pages by their paths."""
    cache = root / ".pytest_cache" / "v" / "cache" / "lastfailed"
    names: list[str] = list(json.loads(cache.read_text())) if cache.exists() else []
    wanted = [name.split("::")[0] if name.startswith("docs/") else name for name in names]
    return list(dict.fromkeys(wanted))


if __name__ == "__main__":
    tests = failed(Path.cwd())
    told = "\n".join([f"{len(tests)} failed, and run once more, alone:", *tests])
    sys.stdout.write(f"{told}\n")
    sys.stdout.flush()
    options = ["--exitfirst", "--timeout", "120", "--timeout-method", "signal"]
    sys.exit(pytest.main([*options, *tests]) if tests else 1)
