"""What may be said of a source when it is declared, besides where its rows go."""

from __future__ import annotations

import os
from datetime import tzinfo
from typing import Any, TypedDict

from run_task.sources._faults import OnFault
from run_task.sources.journal._journal import Journal
from run_task.time._interval import TimeUnit
from run_task.time._length import IntervalLike
from run_task.time._retry import Retry


class FunctionOptions(TypedDict, total=False):
    """The options of :meth:`~run_task.Pipeline.source`, which says what each of them does, for a
    function, which has to be given a ``retry=`` as well."""

    unit: TimeUnit | None
    name: str | None
    max_ahead: IntervalLike | None
    on_bad_row: OnFault
    dead_letters: Any
    zone: str | tzinfo | None
    idle: IntervalLike
    dedupe: str | tuple[str, ...] | None
    dedupe_for: IntervalLike
    journal: str | os.PathLike[str] | Journal | None


class SourceOptions(FunctionOptions, total=False):
    """The same for anything else."""

    retry: Retry | None
    partitioned: bool
