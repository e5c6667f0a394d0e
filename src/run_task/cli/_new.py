"""``run-task new``: a small working project to start from."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from string import Template

import typer

from run_task._extras import install_command
from run_task.cli._exits import Exit, building
from run_task.cli._user_error import UserError


def make(name: str) -> Exit:
    """Make a project in a folder of that name."""
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
            made = [_write(folder, template, folder.name) for template in _templates()]
        except OSError as error:
            raise UserError(f"{str(folder)!r} cannot be made: {error}") from error
    for path in made:
        typer.echo(f"made {path}")
    typer.echo(f"\nNow: cd {folder} && run-task run pipeline.py")
    return Exit.DONE


def _templates() -> list[tuple[str, str]]:
    """The files of a project, with their contents."""
    found = resources.files("run_task.cli") / "template"
    return sorted(
        (entry.name.removesuffix(".txt"), entry.read_text(encoding="utf-8"))
        for entry in found.iterdir()
        if entry.name.endswith(".txt")
    )


def _write(folder: Path, template: tuple[str, str], name: str) -> Path:
    path = folder / template[0]
    text = Template(template[1]).substitute(name=name, install=install_command("cli"))
    path.write_text(text, encoding="utf-8")
    return path
