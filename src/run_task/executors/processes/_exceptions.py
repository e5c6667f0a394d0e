"""What goes wrong in a worker process, made ready for the way to its runner."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Sequence

from run_task.executors.processes._wire import loads, pickled


def portable(error: BaseException) -> Sequence[memoryview]:
    """The pieces of an exception: with its traceback in a note, since that cannot be sent.

    Of an exception that cannot be sent itself, or not be loaded again, a RuntimeError tells.
    """
    note = "in the worker process:\n" + "".join(traceback.format_exception(error))
    error.__traceback__ = None  # it has been told, and holds on to the data
    try:
        error.add_note(note)
        try:
            pieces = pickled(error)
        finally:
            error.__notes__.pop()  # a task may raise the same one again
        if isinstance(loads(pieces), type(error)):
            return pieces
    except BaseException:  # any code of theirs may have run
        pass
    told = RuntimeError("".join(traceback.format_exception_only(error)).strip())
    told.add_note(note)
    return pickled(told)


def unsendable(result: str, error: BaseException) -> Sequence[memoryview]:
    """The pieces of an exception that says why a result cannot be sent.

    :param result: what it is
    :param error: what pickling or packing it raised
    """
    told = pickle.PicklingError(
        f"its result, {result}, cannot be sent back ({type(error).__name__}: {error})"
    )
    told.__cause__ = error
    return portable(told)


class Broken:
    """Stands in the place of what could not be loaded.

    :param error: what loading it raised
    :param what: what could not be loaded
    """

    def __init__(self, error: BaseException, what: str) -> None:
        told = pickle.UnpicklingError(
            f"{what} cannot be loaded in a worker process ({type(error).__name__}: {error})"
        )
        told.__cause__ = error
        self.pieces: Sequence[memoryview] = portable(told)
