"""The commands and their options. What they do is imported once it is asked for."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from run_task.cli._completion import complete
from run_task.cli._exits import EPILOG

app: typer.Typer = typer.Typer(
    name="run-task",
    help="Live analytics in one process: run a pipeline, replay it over history, or check it.",
    epilog=EPILOG,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help in boxes would take half as long again to come
)


class Level(enum.StrEnum):
    """From which level on log records are shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="The pipeline: app.py:pipeline, or package.module:pipeline. The name after the colon "
        "may be left out where there is only one.",
        autocompletion=complete,
        show_default=False,
    ),
]
For = Annotated[
    str | None,
    typer.Option(
        "--for", metavar="TIME", help="End after so long: 30s, 1.5m, 2h, 1d.", show_default=False
    ),
]
LogLevel = Annotated[
    Level | None,
    typer.Option(
        "--log-level",
        help="From which level on the log is shown, on the standard error. By default warning; "
        "error in a replay, and beside the live view: they count failed tasks themselves.",
        case_sensitive=False,
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but the log.")]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Write one DataSet a line, as JSON, to the standard output; nothing else."
    ),
]


Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="TEXT",
        help="Of stages by key, show the keys that have this in them, in capitals or not.",
        show_default=False,
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from run_task._version import __version__

        typer.echo(f"run-task {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version, and end."
        ),
    ] = False,
) -> None:
    pass


@app.command(epilog=EPILOG)
def run(
    target: Target,
    for_: For = None,
    quiet: Quiet = False,
    json: Json = False,
    log_level: LogLevel = None,
    key: Key = None,
) -> None:
    """Run a pipeline live, until Ctrl-C, or its sources end.

    On a terminal, shows a live view of it; elsewhere, a line for each DataSet. The first Ctrl-C
    shuts it down, and the second ends it at once.
    """
    from run_task.cli import _run as command

    show = command.Show.of(quiet, json)
    _end(command.run_target(target, for_, show, _name(log_level), key))


@app.command(epilog=EPILOG)
def replay(
    target: Target,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Leave out windows that end by then: 2026-11-24T08:00Z, 2026-11-24 (in that of "
            "--zone, where it names none), or a whole number in the unit of the stages.",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Leave out windows that start from then on.", show_default=False
        ),
    ] = None,
    zone: Annotated[
        str,
        typer.Option(
            metavar="ZONE",
            help="The time zone of --start and --end where they name none: Europe/Berlin.",
        ),
    ] = "UTC",
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the results to a file, whose name says how: .parquet, .csv, .jsonl, or .db "
            "for SQLite.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
    log_level: LogLevel = None,
) -> None:
    """Run a pipeline over history, as fast as the machine goes.

    The history is what its sources have, from the first row to the last.
    """
    from run_task.cli import _replay as command

    _end(command.replay_target(target, start, end, out, quiet, _name(log_level), zone))


@app.command(epilog=EPILOG)
def check(target: Target) -> None:
    """Draw a pipeline without running it, and list mistakes.

    Every mistake that is found is told, and not only the first.
    """
    from run_task.cli import _check as command

    _end(command.check_target(target))


@app.command(epilog=EPILOG)
def convert(
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD",
            help="What an older version has written: a CSV or JSON Lines file, a Parquet file or a "
            "folder of them, an SQLite file, or the URL of a database.",
            show_default=False,
        ),
    ],
    new: Annotated[
        str,
        typer.Argument(
            metavar="NEW",
            help="What to make: a file that is not there, whose name says how (.csv, .jsonl, "
            ".parquet or .db, else as OLD), a folder, or the URL of a database.",
            show_default=False,
        ),
    ],
    table: Annotated[str, typer.Option(metavar="NAME", help="The table in OLD.")] = "results",
    new_table: Annotated[
        str, typer.Option(metavar="NAME", help="The table in NEW, which must not be there.")
    ] = "results",
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="UNIT",
            help="The unit of the times in OLD, which did not say: ns, us, ms, s or m. By default "
            "it stays unknown.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a file or table of today's format of one that an older version wrote.

    The old one stays as it is, and a sink goes on with the new one.
    """
    from run_task.cli import _convert as command

    _end(command.convert(old, new, table, new_table, unit))


@app.command(epilog=EPILOG)
def demo(
    for_: For = None,
    quiet: Quiet = False,
    json: Json = False,
    log_level: LogLevel = None,
) -> None:
    """Monitor this machine: its CPU, memory, disk and network."""
    from run_task.cli import _run as command

    _end(command.run_demo(for_, command.Show.of(quiet, json), _name(log_level)))


@app.command(epilog=EPILOG)
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The folder to make.", show_default=False)
    ],
) -> None:
    """Make a small working project to start from.

    It has a pipeline, its tests, and a README.
    """
    from run_task.cli import _new as command

    _end(command.make(name))


def _name(level: Level | None) -> str | None:
    return None if level is None else level.value


def _end(code: Any) -> None:
    raise typer.Exit(int(code))
