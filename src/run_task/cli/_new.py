"""``run-task new``: a small working project to start from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

import typer

from run_task._extras import install_command
from run_task.cli._exits import Exit, building
from run_task.cli._new_broker import texts
from run_task.cli._rows_from import RowsFrom
from run_task.cli._user_error import UserError


def make(name: str, kind: RowsFrom | None = None) -> Exit:
    """Make a project in a folder of that name.

    :param name: the folder
    :param kind: where its rows come from; None: it makes them up
    """
    with building():
        folder = Path(name)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", folder.name, re.ASCII):
            raise UserError(
                f"{folder.name!r} is no name for a project: take letters, digits, '-', '_' and '.'"
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{str(folder)!r} is there already, and not empty: take another name")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            given = {"name": folder.name, "install": install_command("cli")}
            if kind is not None:
                about = texts(kind, folder.name)
                given |= {**about, "install": install_command(f"cli,serve,{about['extra']}")}
            made = [_write(folder, template, given) for template in _templates(kind)]
        except OSError as error:
            raise UserError(f"{str(folder)!r} cannot be made: {error}") from error
    for path in made:
        typer.echo(f"made {path}")
    then = "run-task run pipeline.py" if kind is None else "less README.md"
    typer.echo(f"\nNow: cd {folder} && {then}")
    return Exit.DONE


def _templates(kind: RowsFrom | None) -> list[tuple[str, str]]:
    """The files of a project, with their contents."""
    found = resources.files("run_task.cli") / "template"
    if kind is not None:
        found /= "broker"
    return sorted(
        (entry.name.removesuffix(".txt"), entry.read_text(encoding="utf-8"))
        for entry in found.iterdir()
        if entry.name.endswith(".txt")
    )


def _write(folder: Path, template: tuple[str, str], given: Mapping[str, str]) -> Path:
    path = folder / template[0].replace("service.", f"{given['name']}.")
    text = Template(template[1]).substitute(given)
    path.write_text(text, encoding="utf-8")
    return path
