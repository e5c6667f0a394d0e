"""What goes wrong in a worker process, made ready to be sent to its runner.

An exception is sent as a pair: itself, and a note with its traceback, which cannot be sent.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final

from run_task.errors import described
from run_task.executors.processes._wire import loads, pickled

PICKLED: Final = (
    "return only what can be pickled: its numbers and texts, and no lock, connection or open file"
)
LESS: Final = "there is no room for it: return less at once, or give the machine more memory"


def portable(error: BaseException) -> Sequence[memoryview]:
    """The pieces of an exception and its note.

    In the place of an exception that cannot be sent, or not be loaded again, there is a
    RuntimeError with its text.
    """
    try:
        note = "in the worker process:\n" + "".join(traceback.format_exception(error))
        text = "".join(traceback.format_exception_only(error)).strip()
    except BaseException:  # any code of theirs may have run
        note = text = described(error)
    # The traceback has been told, and holds on to the data. Some exceptions refuse to be assigned
    # to, as frozen dataclasses do.
    BaseException.with_traceback(error, None)
    for sent in (error, _Rebuilt(error)):
        try:
            pieces = pickled((sent, note))
            if isinstance(loads(pieces)[0], type(error)):
                return pieces
        except BaseException:
            pass
        if type(error).__setattr__ is BaseException.__setattr__:
            break  # to be rebuilt in another way would make no difference
    return pickled((RuntimeError(text), note))


class _Rebuilt:
    """In the place of an exception that refuses to have attributes set, as pickle does.

    :param error: the exception
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        slots = [name for kind in type(error).__mro__ for name in vars(kind).get("__slots__", ())]
        state = {name: getattr(error, name) for name in slots if hasattr(error, name)}
        return _rebuilt, (type(error), error.args, {**vars(error), **state})


def _rebuilt(
    kind: type[BaseException], args: tuple[Any, ...], state: Mapping[str, Any]
) -> BaseException:
    error = kind.__new__(kind, *args)
    for name, value in state.items():
        object.__setattr__(error, name, value)
    return error


def unsendable(result: str, error: BaseException, cure: str = PICKLED) -> Sequence[memoryview]:
    """The pieces of an exception that says why a result cannot be sent.

    :param result: what it is
    :param error: what pickling or packing it raised
    :param cure: what to do about it
    """
    told = pickle.PicklingError(
        f"its result, {result}, cannot be sent back ({described(error)}): {cure}"
    )
    told.__cause__ = error
    return portable(told)


class LoadFailure:
    """Stands in the place of what could not be loaded.

    :param error: what loading it raised
    :param what: what could not be loaded
    """

    def __init__(self, error: BaseException, what: str) -> None:
        told = pickle.UnpicklingError(
            f"{what} cannot be loaded in a worker process ({described(error)})"
        )
        told.__cause__ = error
        self.pieces: Sequence[memoryview] = portable(told)
