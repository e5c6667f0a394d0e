"""What the API offers, and what may be said to each part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from run_task.serve._operations import Operation, Parameter
from run_task.serve._shapes import (
    FailuresInFull,
    FatesTold,
    KeyedNumbers,
    KeyPage,
    NumbersTold,
    PausedTold,
    PipelineNames,
    SessionTold,
    StageInFull,
    StatusTold,
    Topology,
)

ARROW: Final = "application/vnd.apache.arrow.stream"

_PIPELINE: Final = Parameter(
    name="pipeline", kind=str, about="Of which pipeline; it may be left out where there is one."
)
_STAGE: Final = Parameter(name="stage", kind=str, required=True, about="Of which stage.")
_SINCE: Final = Parameter(
    name="since",
    kind=float,
    minimum=0,
    maximum=1e16,
    about="Only what is later, in milliseconds since the Unix epoch: `next` of the answer before.",
)
_TEXT: Final = {"text/event-stream": {"type": "string"}}


_SEARCH: Final = (
    Parameter(name="search", kind=str, default="", about="What keys have in them."),
    Parameter(
        name="where",
        kind=str,
        form="condition",
        about='What holds of their results: `mean > 3 and state = "on"`. The name of a task, or of '
        "a field of its result as `task_field`; `= != < <= > >=`; a number, a text in quotes, "
        "`true`, `false` or `null`. What is missing is only found by `= null`.",
    ),
    Parameter(name="sort", kind=str, about="By which task; else by key."),
    Parameter(name="descending", kind=bool, default=False, about="The last first."),
    Parameter(
        name="offset",
        kind=int,
        default=0,
        minimum=0,
        maximum=10**9,
        about="How many to leave out.",
    ),
    Parameter(
        name="limit",
        kind=int,
        default=100,
        minimum=1,
        maximum=1000,
        about="How many at most.",
    ),
)
_FORMAT: Final = Parameter(
    name="format",
    kind=str,
    choices=("json", "arrow"),
    default="json",
    about="As JSON, or as a stream of Arrow.",
)
_KEY: Final = Parameter(name="key", kind=str, about="Of which key; it is watched from now on.")
_TASK: Final = Parameter(name="task", kind=str, about="Which task of it; else all windows.")
_ARROW_TOO: Final = {ARROW: {"type": "string", "format": "binary"}}

OPERATIONS: Final[Sequence[Operation]] = [
    Operation(
        path="/health",
        name="health",
        about="Whether the service is alive.",
        answers={200: (StatusTold,)},
        refuses=(),
    ),
    Operation(
        path="/ready",
        name="ready",
        about="Whether pipelines run, sources are connected, and windows in time.",
        answers={200: (StatusTold,), 503: (StatusTold,)},
        refuses=(),
    ),
    Operation(
        path="/metrics",
        name="metrics",
        about="Metrics, as Prometheus has them.",
        answers={200: ()},
        media={"text/plain": {"type": "string"}},
        refuses=(),
    ),
    Operation(
        path="/api/session",
        name="session",
        about="What whoever asks may do.",
        answers={200: (SessionTold,)},
    ),
    Operation(
        path="/api/session",
        method="POST",
        name="begin_session",
        about="Begin a session with the token: the answer sets a cookie.",
        answers={204: ()},
    ),
    Operation(
        path="/api/session",
        method="DELETE",
        name="end_session",
        about="End the session.",
        answers={204: ()},
    ),
    Operation(
        path="/api/pipelines",
        name="pipelines",
        about="The pipelines that are served.",
        answers={200: (PipelineNames,)},
    ),
    Operation(
        path="/api/pipeline",
        name="pipeline",
        about="What a pipeline is made of.",
        parameters=(_PIPELINE,),
        answers={200: (Topology,)},
        refuses=(404, 422),
    ),
    Operation(
        path="/api/live",
        name="live",
        about="How a pipeline does, as it changes: at most four states a second.",
        parameters=(_PIPELINE,),
        answers={200: ()},
        media=_TEXT,
        refuses=(404, 422, 503),
    ),
    Operation(
        path="/api/stages/{name}",
        name="stage",
        about="All that is known of a stage.",
        parameters=(_PIPELINE,),
        answers={200: (StageInFull,)},
        refuses=(404, 422),
    ),
    Operation(
        path="/api/stages/{name}/pause",
        method="POST",
        name="pause",
        about="Pause a stage: its windows give no results. Or a task: they give those of others.",
        parameters=(_PIPELINE, _TASK),
        answers={200: (PausedTold,)},
        refuses=(404, 409, 422),
    ),
    Operation(
        path="/api/stages/{name}/resume",
        method="POST",
        name="resume",
        about="Resume a stage, or a task, that is paused.",
        parameters=(_PIPELINE, _TASK),
        answers={200: (PausedTold,)},
        refuses=(404, 409, 422),
    ),
    Operation(
        path="/api/results",
        name="results",
        about="Numbers of the last hour; of a stage by key without key=, what its "
        "newest window gave for all keys.",
        parameters=(_PIPELINE, _STAGE, _KEY, _SINCE, _FORMAT),
        answers={200: (NumbersTold, KeyedNumbers)},
        media=_ARROW_TOO,
        refuses=(404, 406, 422, 503),
    ),
    Operation(
        path="/api/keys",
        name="keys",
        about="Some keys of the newest window of a stage by key.",
        parameters=(_PIPELINE, _STAGE, *_SEARCH),
        answers={200: (KeyPage,), 304: ()},
        refuses=(404, 409, 422, 503),
    ),
    Operation(
        path="/api/fates",
        name="fates",
        about="What became of the rows of a source, over time.",
        parameters=(
            _PIPELINE,
            Parameter(name="source", kind=str, required=True, about="Of which source."),
            _SINCE,
        ),
        answers={200: (FatesTold,)},
        refuses=(404, 422),
    ),
    Operation(
        path="/api/errors",
        name="errors",
        about="What tasks failed by, by cause, the latest first.",
        parameters=(_PIPELINE,),
        answers={200: (FailuresInFull,)},
        refuses=(404, 422),
    ),
    Operation(
        path="/api/stream",
        name="stream",
        about="DataSets as they come; by a WebSocket at the same path, too. What is "
        "not taken in time is left out, and counted.",
        parameters=(
            _PIPELINE,
            Parameter(name="stage", kind=str, about="Of which stage; else of all."),
            Parameter(name="key", kind=str, about="Of which key; else of all."),
        ),
        answers={200: ()},
        media=_TEXT,
        refuses=(404, 422, 503),
    ),
]
