"""What test_benchmarks has measured in a process of its own: peers of several kinds of trouble."""

from __future__ import annotations

import subprocess
import sys


def missing() -> None:
    raise ModuleNotFoundError("No module named 'peer'")


def silent() -> None:
    sys.exit(3)


def chatty() -> list[int]:
    sys.stdout.write("hello ")
    sys.stdout.flush()
    subprocess.run(["echo", "beside"], check=True)  # to the process's own standard output
    return [1]


def littering() -> int:
    return subprocess.Popen(["sleep", "600"]).pid


def endless() -> None:
    while True:
        pass
