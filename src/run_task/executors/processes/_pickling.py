"""What can be sent to another process, as bytes and large buffers beside them."""

from __future__ import annotations

import importlib
import pickle
from typing import Any, Final

from run_task._extras import install_command

PROTOCOL: Final = 5


class NeedsCloudpickle(pickle.PicklingError):
    """What plain pickle cannot send, and cloudpickle, which is not installed, perhaps can."""


def dumps(value: Any, buffers: list[pickle.PickleBuffer]) -> bytes:
    """Pickle a value: plainly, or by cloudpickle where that cannot be loaded elsewhere.

    What stands in ``__main__`` is such a case: its name means another module in a worker process,
    so it has to be sent along whole.

    :param value: what to pickle
    :param buffers: takes the large buffers, out of band
    :raises Exception: whatever pickling raises; a PicklingError with the cure if it takes
        cloudpickle and that is not installed
    """
    cause: Exception | None = None
    try:
        data = pickle.dumps(value, PROTOCOL, buffer_callback=buffers.append)
        if b"__main__" not in data:
            return data
    except Exception as error:
        cause = error
    buffers.clear()
    try:
        cloudpickle: Any = importlib.import_module("cloudpickle")  # it has no types
    except ImportError:
        if cause is not None and not isinstance(cause, (pickle.PicklingError, AttributeError)):
            raise cause from None  # of something in it, and not of where it stands
        why = f"{cause}" if cause else "it is defined in the main program"
        raise NeedsCloudpickle(
            f"{why}; put it at the top of a module of its own, or {install_command('processes')}"
        ) from cause
    whole: bytes = cloudpickle.dumps(value, PROTOCOL, buffer_callback=buffers.append)
    return whole
