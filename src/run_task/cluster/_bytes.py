"""Values of users as bytes: tasks, results, states and exceptions, which may run any code when they
are pickled or loaded. A cluster is trusted as one's own machines are."""

from __future__ import annotations

import importlib
import pickle
import sys
import threading
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, Final

from run_task.executors.processes._pickling import PROTOCOL
from run_task.executors.processes._wire import loads, pickled
from run_task.tasks._task import SENT_WHOLE


class Packing:
    """Values as bytes, where some modules are not to be imported by who loads them, since they do
    more than to define something: what stands in these is sent whole, by cloudpickle.

    Without cloudpickle, they are imported after all.

    :param modules: these modules
    """

    def __init__(self, modules: Sequence[ModuleType] = ()) -> None:
        self._modules = modules
        self._cloudpickle: Any = None
        if modules:
            try:
                self._cloudpickle = importlib.import_module("cloudpickle")  # it has no types
            except ImportError:
                self._modules = ()
        self.names: Sequence[str] = tuple(module.__name__ for module in self._modules)
        """What the modules are called."""

    def as_bytes(self, value: Any) -> bytes:
        """A value, pickled.

        :raises Exception: whatever pickling raises
        """
        if not self._modules:
            return as_bytes(value)
        with _REGISTERING:  # which is for all of a program
            for module in self._modules:
                self._cloudpickle.register_pickle_by_value(module)
            SENT_WHOLE.update(self.names)
            try:
                data: bytes = self._cloudpickle.dumps(value, PROTOCOL)
            finally:
                SENT_WHOLE.difference_update(self.names)
                for module in self._modules:
                    self._cloudpickle.unregister_pickle_by_value(module)
        return joined([memoryview(data)])

    def sent_whole(self, value: Any) -> bytes:
        """A value, pickled, of which it was seen that it can be made again.

        :raises Exception: whatever pickling, or making it again, raises
        """
        data = self.as_bytes(value)
        of_bytes(data)
        return data


_REGISTERING: Final = threading.Lock()


def stand_in_for(names: Iterable[str]) -> None:
    """Let modules be there and be empty, so that they are never imported: what stands in them was
    sent whole, and is sent back so."""
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = ModuleType(name)


def as_bytes(value: Any) -> bytes:
    """A value, pickled: what stands in the main program whole.

    :raises Exception: whatever pickling raises
    """
    return joined(pickled(value))


def joined(pieces: Sequence[memoryview]) -> bytes:
    """Pieces of a value as bytes."""
    return pickle.dumps([bytes(piece) for piece in pieces], PROTOCOL)


def of_bytes(data: bytes) -> Any:
    """The value.

    :raises Exception: whatever loading raises
    """
    return loads([memoryview(piece) for piece in pickle.loads(data)])
