"""A process that ends with the one that has started it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from typing import Final

_EXIT_GRACE: Final = 1.0
"""How many seconds a worker has to end by itself once its runner is gone."""


def interpreter(descriptor: int, module: str) -> subprocess.Popen[bytes]:
    """Start a new interpreter like this one, which serves at this end of a socket.

    :param descriptor: of the socket
    :param module: whose ``main(descriptor, parent)`` it calls, with the number of this process
    """
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from {module} import main; main({descriptor}, {os.getpid()})"
    )
    # Whether asserts count, and which warnings are errors: a task is to behave as it would here.
    flags = ["-O"] * sys.flags.optimize + [f"-W{option}" for option in sys.warnoptions]
    return subprocess.Popen(
        [sys.executable, *flags, "-c", code],
        stdin=subprocess.DEVNULL,
        pass_fds=[descriptor],
        # Ctrl-C goes to every process of a terminal's group; what it means is the runner's to say.
        process_group=0,
    )


def end_with_parent(parent: int) -> None:
    """Have the system end this process when its runner's ends, also if a task holds the GIL."""
    if sys.platform == "linux":
        die_with_parent = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it was gone before


def end_with_socket(descriptor: int) -> None:
    """End this process once the other end of the socket is gone, whatever a task is at."""
    poll = select.poll()
    poll.register(descriptor, 0)  # nothing but its end
    poll.poll()
    time.sleep(_EXIT_GRACE)
    os._exit(1)
