"""How the command ends: with an exit code that tells its caller why."""

from __future__ import annotations

import enum
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import typer


class Exit(enum.IntEnum):
    """An exit code."""

    DONE = 0
    """It did what was asked for. Ctrl-C, SIGTERM and ``--for`` end a run well, too."""

    FAILED = 1
    """The pipeline failed while it ran: a source, a sink, an ingest, or a task that must not."""

    USAGE = 2
    """The command line makes no sense."""

    MISTAKE = 3
    """There is a mistake in the user's file, or in the pipeline that it builds."""

    INTERRUPTED = 130
    """Ctrl-C ended it before it was done; in a run, the second one."""


EPILOG: Final = (
    "Exit codes: 0 done, also by Ctrl-C, SIGTERM or --for; 1 the pipeline failed; 2 wrong usage; "
    "3 a mistake in your file or pipeline; 130 a run ended at once by a second Ctrl-C, or anything "
    "else by the first."
)
"""The codes, as the help tells them."""


@contextmanager
def building() -> Generator[None]:
    """Code of the user's makes a pipeline: what goes wrong meanwhile is a mistake in it."""
    from run_task.cli._user_error import error_text

    try:
        yield
    except typer.BadParameter:  # it takes what the project says to know that
        raise
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except (Exception, SystemExit) as error:
        _tell(error_text(error))
        raise typer.Exit(Exit.MISTAKE) from None


@contextmanager
def running() -> Generator[None]:
    """A pipeline runs: what goes wrong meanwhile is its failure, unless it could not begin."""
    from run_task.cli._user_error import UserError, error_text
    from run_task.errors import ConfigError

    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except (ConfigError, UserError) as error:
        _tell(error_text(error))
        raise typer.Exit(Exit.MISTAKE) from None
    except (Exception, BaseExceptionGroup) as error:
        _tell(error_text(error))
        raise typer.Exit(Exit.FAILED) from None


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  it is the command's output
