"""``run-task.toml``, or ``[tool.run-task]`` of ``pyproject.toml``: pipelines, their parameters, and
how they are run; overridden by the environment, and that by the command line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from run_task._extras import need
from run_task.cli._logs import show_log
from run_task.cli._params import is_reference, of_file, path_of
from run_task.cli._shards import ShardChoice
from run_task.cli._target import Target
from run_task.cli._user_error import UserError

if TYPE_CHECKING:
    from run_task.cli._settings import Settings

FILE: Final = "run-task.toml"

_PREFIX: Final = "RUN_TASK__"
"""What variables of the environment begin with that override something; two underscores stand for a
dot, too."""


@dataclass(frozen=True)
class GivenOptions:
    """What the command line says of a project, and of the log.

    :param file: its file; None: the one that is here, if one is
    :param given: what overrides it, each as ``name=value``
    :param log_level: from which level on the log is shown; None: as the project says
    :param log_format: ``text`` or ``json``; None: as the project says
    :param log_file: where the log goes; None: as the project says
    """

    file: str | None = None
    given: Sequence[str] = ()
    log_level: str | None = None
    log_format: str | None = None
    log_file: str | None = None

    def project(self, level: str | None = None) -> Project:
        """The project, with its log shown.

        :param level: from which level on, if nobody says; None: it is not shown
        :raises UserError: if something in it cannot be
        """
        project = Project.load(self.file, self.given)
        if level is not None:
            settings = project.settings
            known: tuple[str | None, str, str | None] = (None, "text", None)
            if settings is not None:
                file = None if settings.log_file is None else str(path_of(settings.log_file))
                known = settings.log_level, settings.log_format, file
            show_log(
                self.log_level or known[0] or level,
                self.log_format or known[1],
                self.log_file or known[2],
            )
        return project


@dataclass(frozen=True)
class Project:
    """What was said about pipelines before they are run.

    :param path: the file that says so; None: none does
    :param settings: what it says, overridden; None: nothing was said anywhere
    :param params: what the command line says of the parameters of whichever pipeline is meant
    """

    path: Path | None
    settings: Settings | None
    params: Mapping[str, Any]

    @classmethod
    def load(cls, file: str | None = None, given: Sequence[str] = ()) -> Project:
        """What is said.

        :param file: the file; None: ``run-task.toml`` here, or ``pyproject.toml``, if it has it
        :param given: what the command line says, each as ``name=value``: a parameter, or with a
            dot in it any setting
        :raises UserError: if the file is not there, or something in it cannot be
        """
        path, tree = _found(file)
        if path is not None:
            _mark_paths(tree, path.parent)
        _override(tree, _of_environment(os.environ))
        params: dict[str, Any] = {}
        for text in given:
            name, equals, value = text.partition("=")
            if not equals or not name:
                raise UserError(f"--set {text!r}: say name=value, as in --set interval=5s")
            if "." in name:
                _override(tree, {tuple(name.split(".")): value})
            else:
                params[name] = _value(value)
        settings = None if path is None and not tree else _checked(path, tree)
        return cls(path, settings, params)

    @property
    def says_of_service(self) -> bool:
        """Whether it says anything of how pipelines are served."""
        from run_task.cli._settings import ServeSettings

        return self.settings is not None and self.settings.serve != ServeSettings()

    @property
    def names(self) -> Sequence[str]:
        """The pipelines that it knows."""
        return () if self.settings is None else tuple(self.settings.pipelines)

    def target(self, text: str) -> Target:
        """The target that a text names: a pipeline of the project, or any.

        :raises UserError: if it names none
        """
        known = None if self.settings is None else self.settings.pipelines.get(text)
        if known is None:
            return replace(Target.parse(text), params=dict(self.params))
        folder = Path() if self.path is None else self.path.parent
        params = {**known.params, **self.params}
        over = ShardChoice(known.shards, known.ray)
        return replace(Target.parse(known.target, folder), params=params, called=text, over=over)

    def targets(self, texts: Sequence[str]) -> Sequence[Target]:
        """The targets that texts name; without any, all pipelines of the project.

        :raises UserError: if one names none, or there are none
        """
        if not texts and not self.names:
            raise UserError(
                f"which pipeline? name one, as app.py:pipeline, or say it in {FILE}: "
                f"[pipelines.NAME] target = 'app.py:pipeline'"
            )
        return [self.target(text) for text in texts or self.names]


def _found(file: str | None) -> tuple[Path | None, dict[str, Any]]:
    """The file, and what stands in it."""
    if file is not None:
        path = Path(file)
        tree = _read(path)
        return path, _tool(tree) or {} if path.name == "pyproject.toml" else tree
    path = Path(FILE)
    if path.is_file():
        return path, _read(path)
    project = Path("pyproject.toml")
    if project.is_file() and (tool := _tool(_read(project))) is not None:
        return project, tool
    return None, {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{str(path)!r} is no TOML: {error}") from None


def _tool(tree: Mapping[str, Any]) -> dict[str, Any] | None:
    tools: Any = tree.get("tool")
    if not isinstance(tools, dict):
        return None
    found: Any = cast("dict[str, Any]", tools).get("run-task")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _mark_paths(tree: dict[str, Any], folder: Path) -> None:
    """Have paths that stand in the file be meant from its folder on; what overrides them is meant
    from here on."""
    pipelines, serve = tree.get("pipelines"), tree.get("serve")
    tables: list[Any] = [*pipelines.values()] if isinstance(pipelines, dict) else []
    for table, names in ((tree, ("log_file",)), (serve, ("token", "token_file"))):
        _mark(table, names, folder)
    for table in tables:
        _mark(table, ("params",), folder)


def _mark(table: Any, names: Sequence[str], folder: Path) -> None:
    if isinstance(table, dict):
        given = cast("dict[str, Any]", table)
        given |= {name: of_file(given[name], folder) for name in names if name in given}


def _of_environment(environment: Mapping[str, str]) -> Mapping[tuple[str, ...], str]:
    return {
        tuple(name.removeprefix(_PREFIX).split("__")): value
        for name, value in sorted(environment.items())
        if name.startswith(_PREFIX)
    }


def _override(tree: dict[str, Any], given: Mapping[tuple[str, ...], str]) -> None:
    """Put values in their place. Names are found in capitals or not, and with any hyphens, as
    variables of the environment have none."""
    for place, text in given.items():
        table: dict[str, Any] = tree
        for name in place[:-1]:
            inner: Any = table.setdefault(_like(table, name), {})
            if not isinstance(inner, dict):
                raise UserError(f"{'.'.join(place)}: {name!r} is no table")
            table = cast("dict[str, Any]", inner)
        table[_like(table, place[-1])] = _value(text)


def _like(table: Mapping[str, Any], name: str) -> str:
    plain = name.casefold().replace("-", "_")
    for known in table:
        if known.casefold().replace("-", "_") == plain:
            return known
    return plain if name.isupper() else name


def _value(text: str) -> Any:
    """A list or a table, as TOML has it, or else the text: what it becomes, its type says."""
    if text.startswith(("[", "{")):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{text[:1]}...: it is no list or table of TOML: {error}") from None
    return text


def _checked(path: Path | None, tree: Mapping[str, Any]) -> Settings:
    need("msgspec", "serve")
    from run_task.cli._settings import settings_of

    where = _PREFIX + "..." if path is None else str(path)
    settings = settings_of(tree, where)
    for name, pipeline in settings.pipelines.items():
        if pipeline.ray is not None and pipeline.shards is None:
            raise UserError(
                f"{where}: pipelines.{name}.ray is for shards: say how many there are, shards = 8"
            )
    token = settings.serve.token
    if token is not None and not is_reference(token):
        raise UserError(
            f"{where}: serve.token: no token stands in such a file: say 'env:NAME' or 'file:PATH'"
        )
    return settings
