"""Libraries that not everybody needs: imported when they are used, and asked for if missing."""

from __future__ import annotations

import importlib
from typing import Any

from run_task.errors import ConfigError


def need(module: str, extra: str) -> Any:
    """Import a module that comes with one of this package's extras.

    :param module: the module's full name
    :param extra: the extra that installs it
    :return: the module; its type is Any, since not all of these libraries have types
    :raises ConfigError: if it is not installed; the message says how to install it
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"this needs {module.partition('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'run-task[{extra}]'"
        ) from error
