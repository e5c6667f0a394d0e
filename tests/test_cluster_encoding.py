"""Messages between a driver and its shards arrive as they were sent."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from run_task import Closed, TimeUnit
from run_task.cluster._encoding import decoded, encoded
from run_task.cluster._messages import (
    DropViews,
    KeepView,
    MoreRows,
    RowsRead,
    RunWindow,
    SentRows,
    SeriesSetup,
    ShardFailed,
    ShardRequest,
    ShardResults,
    SignOfLife,
    StageSetup,
    WholeSeries,
)
from run_task.cluster._ray import packed, unpacked
from run_task.cluster._wire import receive, send
from run_task.data.series._tap import SeriesPattern


def rows(count: int) -> SentRows:
    """Rows with columns of many kinds, not all of which lie close together."""
    columns: list[Any] = [
        np.arange(count, dtype=np.int32),
        np.linspace(0, 1, 2 * count)[::2],
        np.arange(count).astype("M8[ms]"),
        np.array(["é", "ab"] * count, "U2")[:count],
        np.array([b"x", b"yz"] * count, "S2")[:count],
        np.arange(count) % 2 == 0,
        np.arange(count, dtype=np.float16),
    ]
    new = np.array([3, 1], np.int32), ["three", "one"]
    return SentRows(np.arange(count) - 5, columns, {0: new})


SERIES = SeriesSetup(
    1,
    SeriesPattern({"key": np.dtype(str)}, TimeUnit.SECONDS, None, Closed.LEFT, None, "key"),
    by_place=False,
)
STAGE = StageSetup(4, "s", [], [b"task"], [("feed", 1), ("value", 0)], b"rest", ())
ALL: Sequence[Any] = [
    ShardRequest([], [], [], [], None, None),
    ShardRequest(
        [SERIES],
        [(1, [WholeSeries(rows(0)), MoreRows(rows(3)), KeepView(2, -(2**63))]), (7, [])],
        [4],
        [9],
        STAGE,
        RunWindow(4, (0, 10), {1: 2}, {7: rows(2)}, {0: b"value"}, (1,), b"states"),
    ),
    ShardRequest([], [(1, [DropViews([1, 2]), MoreRows(rows(20_000))])], [], [], None, None),
    ShardResults(
        ["a", "b"],
        [[1, None], np.array([0.5, np.nan]), ("x", (1, 2.5)), np.arange(2, dtype=np.uint32)],
        {2: [np.float64(1), 2]},
        [(0, 1, b"own")],
        [(0, None, b"fault")],
        [0.1, 0.2, 0.3, 0.4],
        1.5,
        {0: "away"},
    ),
    ShardResults(None, [], {}, [], [], [], 0.0, {}),
    ShardFailed(b"error"),
    RowsRead(3, np.arange(4), np.array(["k"] * 4), ["k"], {1: None}, []),
    SignOfLife(),
    None,
]


def told(message: Any) -> str:
    """All of a message: values, types, and those of arrays."""
    with np.printoptions(threshold=10**6, floatmode="unique"):
        return repr(message)


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: Any) -> None:
    assert told(decoded(*encoded(message))) == told(message)
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as other:
        arrived = other.submit(receive, theirs)
        send(ours, message)
        assert told(arrived.result()) == told(message)
    assert told(unpacked(packed(message))) == told(message)


def test_what_is_large_goes_beside_a_message_to_ray() -> None:
    large = ShardRequest([], [(1, [MoreRows(rows(20_000))])], [], [], None, None)
    data, *arrays = packed(large)
    assert isinstance(data, bytes)
    given: list[Any] = list(arrays)
    assert [array.nbytes for array in given] == [160_000, 80_000, 160_000, 160_000, 160_000]
    assert {type(array) for array in arrays} == {np.ndarray}
    assert len(data) < 20_000 * (2 + 1 + 2) + 1000
    assert isinstance(packed(large._replace(changes=[])), bytes)
