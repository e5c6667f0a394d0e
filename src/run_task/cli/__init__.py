"""The command line, ``run-task``."""

from __future__ import annotations

import os
import sys
from typing import Final

_INTERRUPTED: Final = 130
"""The exit code where Ctrl-C has ended it: ``Exit``, of which it is one, is not imported yet."""


def main() -> None:
    """Do what the command line says, and end the process."""
    try:
        _answer()
    except KeyboardInterrupt:  # while it is being imported: later, the commands answer it
        sys.exit(_INTERRUPTED)


def _answer() -> None:
    try:
        from run_task.cli._app import app
        from run_task.cli._completion import join_words
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        from run_task._extras import install_command

        sys.exit(f"run-task needs {error.name}, which is not installed: {install_command('cli')}")
    join_words(os.environ)
    app(prog_name="run-task")
