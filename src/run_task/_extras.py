"""Optional libraries: imported when they are used, with an error that says how to install them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

from run_task.errors import ConfigError

_DISTRIBUTION: Final = "run-task"


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
            f"this needs {module.partition('.')[0]}, of the extra {_DISTRIBUTION}[{extra}], which "
            f"cannot be imported ({error}): {install_command(extra)}"
        ) from error


def is_of_library(error: BaseException) -> bool:
    """Whether an error says that a library cannot do something: polars has panics that are no
    Exceptions."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def install_command(extra: str) -> str:
    """The command that installs an extra from where this package was installed from, since it may
    be on no index.

    :param extra: the extra, or several, separated by commas
    """
    import json
    import shlex
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        text = distribution(_DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:  # it is imported from a clone, and installed nowhere
        root = Path(__file__).parents[2]
        known = (root / "pyproject.toml").is_file()
        return f"pip install {shlex.quote(f'{root if known else _DISTRIBUTION}[{extra}]')}"
    if text is None:  # from an index
        return f"pip install {shlex.quote(f'{_DISTRIBUTION}[{extra}]')}"
    origin = json.loads(text)
    url = str(origin["url"])
    if url.startswith("file:"):
        option = "--editable " if origin.get("dir_info", {}).get("editable") else ""
        return f"pip install {option}{shlex.quote(f'{unquote(urlsplit(url).path)}[{extra}]')}"
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"pip install {shlex.quote(f'{_DISTRIBUTION}[{extra}] @ {url}')}"
