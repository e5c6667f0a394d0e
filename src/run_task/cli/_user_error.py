"""Errors as the user has to see them: by the lines of the user's own files."""

from __future__ import annotations

import linecache
import os
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

from run_task.errors import ConfigError, RunTaskError, TaskError, escaped

_LIBRARY: Final = f"{Path(__file__).parent.parent}{os.sep}"
_STANDARD_LIBRARY: Final = tuple(
    f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")
)
_PACKAGES: Final = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("purelib", "platlib"))
_PACKAGES_OF_OTHERS: Final = tuple(
    f"{os.sep}{n}{os.sep}" for n in ("site-packages", "dist-packages")
)
"""Those of the user and of the system, which a virtual environment may see, too."""

_MOST_PLACES: Final = 5
"""How many lines of a traceback are told: a recursion has a thousand."""


class UserError(Exception):
    """What the user has to mend before anything can run.

    Its text says what is wrong, and what to do.
    """


def error_text(error: BaseException) -> str:
    """An error as its user has to see it: where in the user's files, what, and what to do.

    Of an exception group, all errors, one after the other.
    """
    return "\n\n".join(_single_text(single) for single in _singles(error))


def _singles(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for part in group.exceptions:
            yield from _singles(part)
    else:
        yield error


def _single_text(error: BaseException) -> str:
    if isinstance(error, UserError):
        return _plain(str(error))
    lines = [*_places(_raised_by_user(error)), _what(error)]
    lines += [f"  {note}" for note in getattr(error, "__notes__", ())]
    if cure := _cure(error):
        lines.append(cure)
    return "\n".join(map(_plain, lines))


def _plain(text: str) -> str:
    """A text whose further lines are set in, without control characters: it may hold data."""
    return "\n    ".join(map(escaped, text.split("\n")))


def _raised_by_user(error: BaseException) -> BaseException:
    """What a task, or another function of the user's, raised: that has the lines to look at.

    A mistake that only a library has found is told by its text: nobody mends it at those lines.
    """
    found = error
    while isinstance(found, RunTaskError) and found.__cause__ is not None and not _places(found):
        found = found.__cause__
    return found if not isinstance(error, ConfigError) or _places(found, own=True) else error


def _places(error: BaseException, *, own: bool = False) -> Sequence[str]:
    """The lines of the user's files that led to it, outermost first.

    :param own: only those that stand in no package
    """
    if isinstance(error, SyntaxError) and error.filename is not None:
        column = " " * max(0, (error.offset or 1) - 1)
        text = (error.text or "").rstrip("\n")
        indent = len(text) - len(text.lstrip())
        pointer = f"    {column[indent:]}^"
        return [f"{_shown(error.filename)}, line {error.lineno}", f"    {text.strip()}", pointer]
    walked = [(f.f_code.co_filename, line) for f, line in traceback.walk_tb(error.__traceback__)]
    foreign = [place for place in walked if not place[0].startswith(("<", _LIBRARY))]
    packaged = [place for place in foreign if _is_in_package(place[0])]
    theirs = [
        place
        for place in foreign
        if place not in packaged and not place[0].startswith(_STANDARD_LIBRARY)
    ]
    # A pipeline may stand in a package that is installed, and then it has no other lines.
    frames = theirs or ([] if own else packaged)
    places: list[str] = []
    if len(frames) > _MOST_PLACES:
        places.append(f"({len(frames) - _MOST_PLACES} more lines of your files before)")
    for path, line in frames[-_MOST_PLACES:]:
        places += [f"{_shown(path)}, line {line}", f"    {linecache.getline(path, line).strip()}"]
    return places


def _is_in_package(path: str) -> bool:
    return path.startswith(_PACKAGES) or any(part in path for part in _PACKAGES_OF_OTHERS)


def _shown(path: str) -> str:
    """A file, as seen from the folder that the user is in."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def _what(error: BaseException) -> str:
    kind = type(error).__name__
    if isinstance(error, TaskError):
        return str(error)
    match error:
        case SyntaxError():
            text = error.msg
        case NameError() | AttributeError() | ImportError():
            # With what Python guesses was meant.
            text = str(traceback.TracebackException.from_exception(error))
        case _:
            text = str(error)
    return f"{kind}: {text}" if text else kind


def _cure(error: BaseException) -> str | None:
    match error:
        case RunTaskError():
            return None  # its text says what to do
        case ModuleNotFoundError():
            return (
                f"Install what has the module {error.name!r}, or, if it is your own, run this in "
                f"the folder that it is in."
            )
        case SyntaxError():
            return "Python cannot read this line: correct it."
        case _:
            return None
