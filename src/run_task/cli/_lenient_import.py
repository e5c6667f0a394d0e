"""Importing a module that has mistakes: statement by statement, so that all of them are found."""

from __future__ import annotations
import __future__

import ast
import importlib.util
import sys
from collections.abc import Iterator
from importlib.abc import InspectLoader
from types import ModuleType

from run_task.cli._target import Target
from run_task.cli._user_error import UserError
from run_task.pipeline._stage import calls_checked_later


def load(target: Target) -> tuple[ModuleType, list[BaseException]]:
    """Run the statements of a module, and go on with the next one after a mistake.

    What fails only because an earlier mistake has left a name undefined is no mistake of
    its own, and not told.

    :param target: names the module
    :return: the module, as far as it could be made, and what went wrong
    :raises UserError: if there is no such module
    :raises Exception: if the packages around it cannot be imported, or it cannot be read
    """
    target.make_importable()
    spec = target.spec()
    loader = spec.loader
    source = loader.get_source(target.module) if isinstance(loader, InspectLoader) else None
    if source is None or spec.origin is None:
        raise UserError(f"{target.text!r}: this module has no source that could be checked")
    module = importlib.util.module_from_spec(spec)
    try:
        tree = ast.parse(source, spec.origin)
    except SyntaxError as error:
        return module, [error]
    sys.modules[target.module] = module  # for dataclasses, pickle, and imports in a circle
    mistakes: list[BaseException] = []
    undefined: set[str] = set()
    flags = _future_flags(tree)
    for statement in tree.body:
        code = compile(
            ast.Module([statement], []), spec.origin, "exec", flags=flags, dont_inherit=True
        )
        try:
            with calls_checked_later():
                exec(code, vars(module))
        except (Exception, SystemExit) as error:
            if not (isinstance(error, NameError) and error.name in undefined):
                mistakes.append(error)
            undefined |= {name for name in _defined_by(statement) if name not in vars(module)}
    return module, mistakes


def _future_flags(tree: ast.Module) -> int:
    flags = 0
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            for alias in statement.names:
                flags |= getattr(__future__, alias.name).compiler_flag
    return flags


def _defined_by(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module gives a meaning to."""
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in names)
            case _:
                pass
