"""What a replay goes through: the sources that have a history, or rows that series have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from run_task.data import TimeSeries
from run_task.errors import ConfigError
from run_task.pipeline._branches import RoutedSource
from run_task.sources._protocol import about


def with_history(declared: Iterable[RoutedSource], *, is_resumed: bool) -> Sequence[RoutedSource]:
    """The sources that have one, as they are read in a replay.

    :param is_resumed: whether the pipeline is run live afterwards, with the others
    :raises ConfigError: if one has none, and is not left to that run
    """
    found: list[RoutedSource] = []
    for source, unit_ns, route in declared:
        info = about(source)
        if not info.endless:
            found.append((source if info.recording is None else info.recording, unit_ns, route))
        elif not is_resumed:
            raise ConfigError(
                f"{route.origin}: it has no history, and a replay waits for nothing: give rows "
                f"that were collected before, as of a file without follow="
            )
    return found


def check_rows(
    name: str,
    declared: Sequence[RoutedSource],
    sources: Sequence[RoutedSource],
    data: Iterable[Any],
) -> None:
    """See whether there is something to go through.

    :param name: the pipeline's name
    :param declared: all sources
    :param sources: those that have a history
    :param data: what rows may be in already
    :raises ConfigError: if there is nothing
    """
    if not declared and not any(isinstance(one, TimeSeries) and one.view() for one in data):
        raise ConfigError(
            f"pipeline {name!r} has no sources, and a replay goes through their rows, or those of "
            f"a TimeSeries that has been filled: add one by source(), or fill the series; "
            f"run_windows() of run_task.testing runs tasks over other data"
        )
    if declared and not sources:
        told = ", ".join(route.origin for _, _, route in declared)
        raise ConfigError(
            f"{told}: none has a history, so there is nothing to resume from: declare what was "
            f"recorded as a source, too, or run the pipeline live at once"
        )
