"""Shell completion of targets."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ast

_PLACE: Final = "_RUN_TASK_PLACE"
"""What stands before the colon, where the shell replaces only what stands behind it."""


def complete(incomplete: str) -> list[str]:
    """What was typed may become these files and folders; behind a colon, these pipelines."""
    if place := os.environ.get(_PLACE):
        return [name for name in _pipelines(place) if name.startswith(incomplete)]
    place, colon, begun = incomplete.rpartition(":")
    if colon:
        return [f"{place}:{name}" for name in _pipelines(place) if name.startswith(begun)]
    found = _files(incomplete)
    # A shell puts a space behind what is the only choice, and into a folder one wants to go on.
    while len(found) == 1 and found[0].endswith("/"):
        found = _files(found[0])
    return found


def join_words(environ: MutableMapping[str, str]) -> None:
    """Make one word again of what bash takes for three: the file, the colon, and the name.

    :param environ: what bash tells of the line that is typed
    """
    if environ.get("_RUN_TASK_COMPLETE") != "complete_bash":
        return
    words = environ.get("COMP_WORDS", "").split("\n")
    at = int(environ.get("COMP_CWORD", "0"))
    before, word = words[:at], "".join(words[at : at + 1])
    if word == ":":
        word = ""
    elif before[-1:] == [":"]:
        del before[-1]
    else:
        return
    environ[_PLACE] = before.pop()
    environ["COMP_WORDS"] = "\n".join((*before, word))
    environ["COMP_CWORD"] = str(len(before))


def _files(incomplete: str) -> list[str]:
    folder, slash, begun = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder or (slash or ".")).iterdir())
    except OSError:
        return []
    return [
        f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}"
        for path in found
        if path.name.startswith(begun) and not path.name.startswith((".", "__"))
        if path.suffix == ".py" or path.is_dir()
    ]


def _pipelines(place: str) -> list[str]:
    """The names of the pipelines in a file or module, as far as that is seen without running it."""
    import ast

    path = Path(place if place.endswith(".py") else f"{place.replace('.', '/')}.py")
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    return list(dict.fromkeys(_assigned(tree)))


def _assigned(tree: ast.Module) -> Iterator[str]:
    import ast

    for statement in tree.body:
        match statement:
            case ast.Assign(targets=targets, value=ast.Call(func=made)):
                pass
            case ast.AnnAssign(target=target, value=ast.Call(func=made)):
                targets = [target]
            case _:
                continue
        if "Pipeline" in (getattr(made, "id", None), getattr(made, "attr", None)):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
