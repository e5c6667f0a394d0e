"""What ``import run_task`` brings, and does not bring."""

from __future__ import annotations

import subprocess
import sys

import run_task


def test_all_names_what_is_there() -> None:
    assert sorted(run_task.__all__) == run_task.__all__
    for name in run_task.__all__:
        assert getattr(run_task, name) is not None


def test_nothing_is_imported_but_numpy_and_the_standard_library() -> None:
    script = "import run_task, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    printed = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    ).stdout
    # What .pth files of the environment import before we do is none of ours.
    bare = subprocess.run(
        [sys.executable, "-I", "-c", script.replace("run_task, ", "")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    brought = set(printed.split()) - set(bare.split())
    assert brought - sys.stdlib_module_names == {"run_task", "numpy"}
    assert "asyncio" not in brought, "who has no event loop does not wait for it"
