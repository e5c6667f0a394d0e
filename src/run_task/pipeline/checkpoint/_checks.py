"""Whether a pipeline can have checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from run_task._extras import need
from run_task.data import Atom, RwLock, TimeSeries
from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._branches import RoutedSource
from run_task.pipeline._route import Route
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.checkpoint._folder import FolderStore
from run_task.pipeline.checkpoint._store import CheckpointStore
from run_task.pipeline.checkpoint._values import check_state, kind_of
from run_task.sources._positioned import positioned
from run_task.sources._protocol import about
from run_task.sources._restarted import AsyncFunctionRows, FunctionRows
from run_task.tasks._state_bytes import has_own_bytes
from run_task.tasks._stateful import with_state


def _raise(error: ConfigError) -> None:
    raise error


def store_of(given: Any) -> CheckpointStore:
    """What keeps checkpoints.

    :param given: a folder, or what keeps them itself
    :raises ConfigError: if it is neither
    """
    if isinstance(given, str | os.PathLike):
        return FolderStore(given)  # pyright: ignore[reportUnknownArgumentType]  of which paths, is looked at
    if isinstance(given, type) or not isinstance(given, CheckpointStore):
        raise ConfigError(
            f"Pipeline(checkpoint={brief(given)}): it is a folder, or a CheckpointStore such as "
            f"FolderStore(...)"
        )
    return given


def check_kept(
    stages: Iterable[AnyStage],
    sources: Sequence[RoutedSource],
    called: Callable[[int], str],
    refuse: Callable[[ConfigError], None] = _raise,
) -> Mapping[int, Sequence[RoutedSource]]:
    """Refuse what cannot be part of checkpoints. Returns the ways of each source, by number.

    :param called: what a source is called, by the number of its routes
    :param refuse: is given each reason
    """
    for stage in stages:
        try:
            check_stage(stage)
        except ConfigError as error:
            refuse(error)
    numbers = list(dict.fromkeys(route.number for _, _, route in sources))
    ways = {n: [one for one in sources if one[2].number == n] for n in numbers}
    for number, several in ways.items():
        routes = [route for _, _, route in several]
        try:
            check_source(called(number), several[0][0], routes)
        except ConfigError as error:
            refuse(error)
    return ways


def check_source(name: str, source: Any, routes: Iterable[Route]) -> None:
    """See whether a source can go on from where it was, and what its rows enter be kept.

    :param name: what it is called
    :raises ConfigError: if not
    """
    if positioned(source) is None:
        known = about(source)
        made = isinstance(getattr(source, "inner", source), FunctionRows | AsyncFunctionRows)
        if made or known.once or known.endless:
            why = (
                "it is an iterator, and gives its rows once"
                if known.once
                else "it has no positions, and cannot be read again from its beginning"
                if not made
                else "a function need not give the same each time"
            )
            raise ConfigError(
                f"source {name!r}: after a kill, {brief(source)} could not give the rows again "
                f"that came after the last checkpoint: {why}. Give a file, a list or another "
                f"source that can be iterated over again, one that is Positioned, or journal=, "
                f"which keeps what comes on disk; or leave checkpoint= out"
            )
    for route in routes:
        _check_data(f"source {name!r}", route.into)


def check_stage(stage: Any) -> None:
    """See whether the states of a stage's tasks, and what its results enter, can be kept.

    :raises ConfigError: if not
    """
    for task in stage.tasks:
        own = with_state(task)
        if own is not None:
            check_state(stage.name, own)
    for route in stage.routes:
        _check_data(f"stage {stage.name!r}", route.into)
    if any(isinstance(data, TimeSeries) for data in stage.inputs):
        _need_arrow()


def _need_arrow() -> None:
    try:
        # The first array has Arrow import what it knows of, such as pandas: not in a thread later.
        need("pyarrow", "arrow").array([0])
    except ConfigError as error:
        raise ConfigError(
            f"checkpoint=: the rows of a TimeSeries are kept in Arrow: {error}"
        ) from error


def _check_data(where: str, data: Any) -> None:
    if isinstance(data, TimeSeries):
        _need_arrow()
        return
    if isinstance(data, RwLock | Atom):
        shared: Any = data  # pyright: ignore[reportUnknownVariableType]  of whatever value
        with shared.read() as value:
            kind = kind_of(value)
        if has_own_bytes(kind):
            return
        what = f"a {type(shared).__name__} of a {kind.__qualname__}"
    else:
        what = brief(data)
    raise ConfigError(
        f"{where}: it feeds {what}, whose content no checkpoint can keep: give the value's type "
        f"to_bytes() and the classmethod from_bytes(), feed a TimeSeries, or leave checkpoint= out"
    )
