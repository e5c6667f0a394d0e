"""Which pipeline is meant by ``app.py:pipeline`` or ``package.module:pipeline``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run_task.cli._params import built
from run_task.cli._shards import ALONE, ShardChoice
from run_task.cli._user_error import UserError

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from run_task.pipeline import Pipeline


@dataclass(frozen=True)
class Target:
    """A pipeline's module and name.

    :param text: as the user gave it
    :param folder: where Python looks for the module
    :param module: the module's full name
    :param attribute: what the pipeline is called in it, or a factory that makes one; None: it is
        the only pipeline
    :param params: what a factory is given
    :param called: what it is called in a project; None: it is none of a project
    :param over: over how many shards the project runs it
    """

    text: str
    folder: Path
    module: str
    attribute: str | None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    called: str | None = None
    over: ShardChoice = ALONE

    @classmethod
    def parse(cls, text: str, folder: Path | None = None) -> Target:
        """Read what the user gave.

        :param folder: from where on a file or a module is looked for; None: from here on
        :raises UserError: if it names no file or module
        """
        place, colon, attribute = text.rpartition(":")
        if not colon or attribute.endswith(".py"):
            place, attribute = text, ""
        if attribute and not attribute.isidentifier():
            raise UserError(
                f"{text!r}: {attribute!r} is no name of a variable: give app.py:pipeline, or "
                f"package.module:pipeline"
            )
        if place.endswith(".py") or "/" in place or "\\" in place:
            return cls._of_file(text, (folder or Path()) / place, attribute or None)
        if Path(place).is_file():
            raise UserError(f"{place!r} is no Python file, whose name would end with .py")
        if not all(part.isidentifier() for part in place.split(".")):
            raise UserError(
                f"{text!r} names no pipeline: give app.py:pipeline, or package.module:pipeline"
            )
        return cls(text, (folder or Path()).resolve(), place, attribute or None)

    @classmethod
    def _of_file(cls, text: str, path: Path, attribute: str | None) -> Target:
        if path.is_dir():
            raise UserError(f"{str(path)!r} is a folder: name a file in it, such as {path}/app.py")
        if not path.is_file():
            raise UserError(f"there is no file {str(path)!r}{_seen_from(path)}{_like(path)}")
        path = path.resolve()
        names = [path.stem]
        folder = path.parent
        while (folder / "__init__.py").is_file():  # a module of a package is imported as such
            names.insert(0, folder.name)
            folder = folder.parent
        if not all(name.isidentifier() for name in names):
            raise UserError(
                f"{str(path)!r} cannot be imported as {'.'.join(names)!r}: rename it, with "
                f"letters, digits and underscores only"
            )
        return cls(text, folder, ".".join(names), attribute)

    def make_importable(self) -> None:
        """Let Python find the module, as it does when its folder is the one that one is in.

        :raises UserError: if another module of that name comes first
        """
        folder = str(self.folder)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        loaded = sys.modules.get(self.module)
        there = self.folder / f"{self.module}.py"
        if loaded is not None and there.is_file() and not _is_at(loaded, there):
            raise UserError(
                f"{str(there)!r} cannot be imported, since {self.module!r} is a module of "
                f"Python's, or of a library: rename the file"
            )

    def load(self) -> Pipeline:
        """Import the module, and give the pipeline.

        :raises UserError: if there is none
        :raises Exception: whatever the module raises
        """
        self.make_importable()
        self.spec()
        return self.pipeline_of(importlib.import_module(self.module))

    def spec(self) -> ModuleSpec:
        """Find the module, and import the packages around it.

        :raises UserError: if there is none
        :raises Exception: whatever the packages raise
        """
        spec, missing = None, self.module
        try:
            spec = importlib.util.find_spec(self.module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{self.module}.".startswith(f"{error.name}."):
                raise  # a module that the packages import
            missing = error.name
        if spec is None:
            raise UserError(
                f"there is no module {missing!r} here, in {str(self.folder)!r}, nor among what is "
                f"installed"
            )
        return spec

    def pipeline_of(self, module: ModuleType) -> Pipeline:
        """The pipeline in a module that has been imported.

        :raises UserError: if there is none
        """
        from run_task.pipeline import Pipeline

        there = {k: v for k, v in vars(module).items() if isinstance(v, Pipeline)}
        named = ", ".join(f"{self._place}:{name}" for name in there) or "none"
        if self.attribute is None:
            if not there:
                raise UserError(
                    f"{self.text!r}: there is no pipeline in it: make one that has a name there, "
                    f"and not only in a function: pipeline = Pipeline('name')"
                )
            if len({id(pipeline) for pipeline in there.values()}) > 1:
                raise UserError(f"{self.text!r}: say which pipeline of it you mean; it has {named}")
            return next(iter(there.values()))
        found = getattr(module, self.attribute, None)
        if isinstance(found, Pipeline):
            if self.params:
                names = ", ".join(map(repr, self.params))
                raise UserError(
                    f"{self._where}: it is a pipeline, which takes no parameters, and was given "
                    f"{names}: name a function that makes it: def build(params: Params)"
                )
            return found
        if inspect.isfunction(found):
            made = built(found, self.params, self._where)
            if isinstance(made, Pipeline):
                return made
            raise UserError(
                f"{self._where}: {self.attribute}() gave no Pipeline but a {type(made).__name__}"
            )
        if not hasattr(module, self.attribute):
            raise UserError(
                f"{self.text!r}: there is no {self.attribute!r} in it; its pipelines: {named}"
            )
        raise UserError(
            f"{self.text!r}: {self.attribute!r} is no Pipeline but a {type(found).__name__}; its "
            f"pipelines: {named}"
        )

    @property
    def _where(self) -> str:
        return repr(self.text) if self.called is None else f"pipeline {self.called!r}"

    @property
    def _place(self) -> str:
        return self.text.rpartition(":")[0] if self.attribute else self.text


@contextmanager
def files_closed(pipeline: Pipeline) -> Generator[None]:
    """A block after which sinks are closed that hold results: the program ends, and a file is then
    rewritten without the windows of it that were written again."""
    from run_task.sinks import DurableSink

    sinks = {id(sink): sink for stage in pipeline.stages for sink in stage.sinks}
    with ExitStack() as opened:
        for sink in sinks.values():
            if isinstance(sink, DurableSink):
                opened.callback(sink.close)
        yield


def _seen_from(path: Path) -> str:
    return "" if path.is_absolute() else f" here, in {str(Path.cwd())!r}"


def _like(path: Path) -> str:
    """What a file that is not there may have been meant to be."""
    import difflib

    there = [other.name for other in path.parent.glob("*.py")]
    near = difflib.get_close_matches(path.name, there, 1)
    return f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""


def _is_at(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path
