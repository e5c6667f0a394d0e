"""The commands and their options. What they do is imported once it is asked for."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from run_task.cli._completion import complete
from run_task.cli._exits import EPILOG
from run_task.cli._rows_from import RowsFrom

if TYPE_CHECKING:
    from run_task.cli._project import GivenOptions

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


ShardCount = Annotated[
    int | None,
    typer.Option(
        "--shards",
        metavar="N",
        help="Run stages by key in so many shards, each with some of the keys.",
        show_default=False,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Where the shards run: on a cluster of Ray, auto, local or ray://HOST:PORT.",
        show_default=False,
    ),
]
Local = Annotated[
    bool,
    typer.Option("--local", help="Run the shards in processes of this machine, as by default."),
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="What says more about pipelines: by default run-task.toml, or [tool.run-task] of "
        "pyproject.toml, of this folder.",
        show_default=False,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A parameter of the function that makes the pipeline, or, as in serve.port=80, a "
        "setting of run-task.toml. May be given again.",
        show_default=False,
    ),
]


class LogForm(enum.StrEnum):
    """How log records are written."""

    TEXT = "text"
    JSON = "json"


LogFormat = Annotated[
    LogForm | None,
    typer.Option(
        "--log-format",
        help="Log records as text, or each as an object of JSON on a line.",
        case_sensitive=False,
        show_default=False,
    ),
]
LogFile = Annotated[
    str | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        help="Write the log to a file, which logrotate may move.",
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
    shards: ShardCount = None,
    ray: Ray = None,
    local: Local = False,
    config: Config = None,
    set_: Set = None,
    log_format: LogFormat = None,
    log_file: LogFile = None,
) -> None:
    """Run a pipeline live, until Ctrl-C, or its sources end.

    On a terminal, shows a live view of it; elsewhere, a line for each DataSet. The first Ctrl-C
    shuts it down, and the second ends it at once.
    """
    from run_task.cli import _run as command
    from run_task.cli._shards import ShardOptions

    show, over = command.Show.of(quiet, json), ShardOptions(shards, ray, local)
    said = _said(config, set_, log_level, log_format, log_file)
    _end(command.run_target(target, for_, show, said, key, over))


@app.command(epilog=EPILOG)
def serve(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET...]",
            help="The pipelines, as for run: all of them are one service. By default all of "
            "run-task.toml.",
            autocompletion=complete,
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Where to listen; by default 127.0.0.1. Beyond this machine, a token is needed.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="The port; by default 8080. 0: any that is free.", show_default=False),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="A file with the token, which those bring who look from elsewhere or change "
            "something. By default RUN_TASK_TOKEN, of the environment, has it.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            help="A name under which it may be asked, as that of a proxy. May be given again.",
            show_default=False,
        ),
    ] = None,
    max_lateness: Annotated[
        str | None,
        typer.Option(
            "--max-lateness",
            metavar="TIME",
            help="How late windows may be before /ready says that it is not; by default 10s.",
            show_default=False,
        ),
    ] = None,
    gauge: Annotated[
        list[str] | None,
        typer.Option(
            "--gauge",
            metavar="STAGE/TASK",
            help="A result that is a metric, too. May be given again.",
            show_default=False,
        ),
    ] = None,
    log_level: LogLevel = None,
    shards: ShardCount = None,
    ray: Ray = None,
    local: Local = False,
    config: Config = None,
    set_: Set = None,
    log_format: LogFormat = None,
    log_file: LogFile = None,
) -> None:
    """Run pipelines as a service, with a page in the browser, an API, health and metrics.

    The first Ctrl-C, or SIGTERM, shuts it down, and the second Ctrl-C ends it at once.
    """
    from run_task.cli import _serve as command
    from run_task.cli._shards import ShardOptions

    over = ShardOptions(shards, ray, local)
    options = command.ServeOptions(host, port, token_file, name, max_lateness, gauge)
    said = _said(config, set_, log_level, log_format, log_file)
    _end(command.serve_targets(targets or (), options, said, over))


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
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write a report to a file of HTML: results over time, fates of rows, durations "
            "and errors.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="A key that has a line of its own in the report, of stages by key. Up to ten.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
    log_level: LogLevel = None,
    shards: ShardCount = None,
    ray: Ray = None,
    local: Local = False,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Run a pipeline over history, as fast as the machine goes.

    The history is what its sources have, from the first row to the last.
    """
    from run_task.cli import _replay as command
    from run_task.cli._shards import ShardOptions

    over = ShardOptions(shards, ray, local)
    said = _said(config, set_, log_level)
    drawn = command.ReportOptions(report, key or ())
    _end(command.replay_target(target, start, end, out, drawn, quiet, said, zone, over))


@app.command(epilog=EPILOG)
def recompute(
    target: Target,
    stage: Annotated[
        str, typer.Argument(metavar="STAGE", help="The name of the stage.", show_default=False)
    ],
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Leave out windows that end by then: as for replay.",
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
    quiet: Quiet = False,
    log_level: LogLevel = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Compute windows of a stage again, in the place of those that its sinks hold.

    For a pipeline that does not run: as after a task or a file was corrected.
    """
    from run_task.cli import _recompute as command

    said = _said(config, set_, log_level)
    _end(command.recompute_target(target, stage, start, end, quiet, said, zone))


@app.command(epilog=EPILOG)
def check(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET...]",
            help="The pipelines, as for run; by default all of run-task.toml.",
            autocompletion=complete,
            show_default=False,
        ),
    ] = None,
    shards: ShardCount = None,
    ray: Ray = None,
    local: Local = False,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Draw pipelines without running them, and list mistakes, also those of run-task.toml.

    Every mistake that is found is told, and not only the first. With --shards, also what cannot be
    run over so many.
    """
    from run_task.cli import _check as command
    from run_task.cli._shards import ShardOptions

    over = ShardOptions(shards, ray, local)
    _end(command.check_targets(targets or (), _said(config, set_), over))


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

    _end(command.run_demo(for_, command.Show.of(quiet, json), _said(log_level=log_level)))


@app.command(epilog=EPILOG)
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The folder to make.", show_default=False)
    ],
    template: Annotated[
        RowsFrom | None,
        typer.Option(
            help="Where its rows come from: with a producer to try it, a compose file, a "
            "Dockerfile and a unit of systemd. Without it, they are made up.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a small working project to start from.

    It has a pipeline, its tests, and a README.
    """
    from run_task.cli import _new as command

    _end(command.make(name, template))


def _said(
    config: str | None = None,
    given: list[str] | None = None,
    log_level: Level | None = None,
    log_format: LogForm | None = None,
    log_file: str | None = None,
) -> GivenOptions:
    from run_task.cli._project import GivenOptions

    return GivenOptions(config, tuple(given or ()), log_level, log_format, log_file)


def _end(code: Any) -> None:
    raise typer.Exit(int(code))
