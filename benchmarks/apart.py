"""Measuring in a process of its own.

The threads, objects and processes that some peers leave behind slow whatever is measured after
them, and one that crashes takes its process along.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from benchmarks.question import Skipped

P = ParamSpec("P")
T = TypeVar("T")

ROOT = Path(__file__).parent.parent
PATIENCE = 120.0
"""After how many seconds a peer is given up."""


def apart(name: str, measure: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Skipped:
    """Call a function in a fresh process.

    :param name: who is measured
    :param measure: a function of a module; what it takes and gives has to be the same after a
        journey through JSON
    :return: what it gave; or, if it or its process failed, the last that was heard of it
    """
    call = [measure.__module__, measure.__qualname__, json.dumps(args), json.dumps(kwargs)]
    with tempfile.TemporaryFile("w+") as heard:  # a pipe would wait for whoever else holds it
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, *call],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=heard,
            cwd=ROOT,
            start_new_session=True,  # so that what it started is ended with it
        )
        try:
            answer, _ = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return Skipped(name, f"it took more than {PATIENCE:g} s")
        finally:  # it has ended, or is too slow, or the user has had enough
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
        if child.returncode == 0:
            result: T = json.loads(answer)
            return result
        heard.seek(0)
        said = [line.strip() for line in heard if line.strip()]
        return Skipped(name, said[-1] if said else f"it ended with {child.returncode}")


def main() -> None:
    # What a library or its processes print goes beside the answer, not into it.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        module, function, args, kwargs = sys.argv[1:]
        measure = getattr(importlib.import_module(module), function)
        answer.write(json.dumps(measure(*json.loads(args), **json.loads(kwargs))))


if __name__ == "__main__":
    main()
