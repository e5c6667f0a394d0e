"""Results as messages of a broker: one for each window and key, with an id that is its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from run_task.sinks._plain_json import as_plain, as_text, result_as_json
from run_task.sinks._protocol import Result


class ResultMessage(NamedTuple):
    """What a window gave for one key, or for all."""

    identity: str
    """An id that is the same each time for a pipeline, stage, window, bucket and key, and no
    other's."""
    path: tuple[str, ...]
    """Pipeline, stage and, of a stage by key, the key."""
    body: bytes
    """Plain JSON: ``id``, ``pipeline``, ``stage``, ``start``, ``end``, ``unit``, ``key`` of a stage
    by key, ``results`` by task, ``errors``, a list of ``task`` and ``error``, and, where the window
    lacks something, ``behind``, a list of who gave nothing for it."""


def messages_of(result: Result) -> Iterator[ResultMessage]:
    """What is to be published of a window. A stage by key has a message for each key, and one whose
    key is null, if a task failed for all.

    :raises SinkError: if a result has no form in JSON
    """
    known = result_as_json(result)
    keyed: list[dict[str, Any]] | None = known.pop("keys", None)
    errors: list[dict[str, Any]] = known.pop("errors")
    if keyed is None:
        for error in errors:
            del error["key"]
        yield _message(result, {**known, "errors": errors}, ())
        return
    by_key: dict[Any, dict[str, Any]] = {one["key"]: one["results"] for one in keyed}
    failed: dict[Any, list[dict[str, Any]]] = {}
    for error in errors:
        failed.setdefault(as_plain(error.pop("key"), "key"), []).append(error)
    for key in dict.fromkeys((*by_key, *failed)):
        body = {**known, "key": key, "results": by_key.get(key, {}), "errors": failed.get(key, [])}
        yield _message(result, body, () if key is None else (str(key),))


def _message(result: Result, body: dict[str, Any], key: tuple[str, ...]) -> ResultMessage:
    path = (result.pipeline, result.stage, *key)
    parts = (path, *map(str, result.window), str(result.bucket))
    identity = f"msg_{hashlib.sha256(as_text(parts).encode()).hexdigest()[:32]}"
    return ResultMessage(identity, path, as_text({"id": identity, **body}).encode())
