"""Where rows come from: files, standard input, a callable that is polled."""

from typing import TYPE_CHECKING

from run_task._public import present as _present
from run_task.sources._arrived import Arrived
from run_task.sources._batch import Batch, Batched
from run_task.sources._faults import OnFault
from run_task.sources._positioned import Position, Positioned
from run_task.sources._protocol import Playback, Rows, Source, SourceInfo, about

if TYPE_CHECKING:
    from run_task.sources._backfill import Backfill, backfill
    from run_task.sources._frame_source import FrameSource
    from run_task.sources._inbox import Inbox
    from run_task.sources._paced import Paced, PacedBatches, paced
    from run_task.sources._partitioned import Partitioned
    from run_task.sources._playback_clock import PlaybackClock
    from run_task.sources._polling import Polling, polling
    from run_task.sources._standard_input import StdinJsonLines
    from run_task.sources.brokers._kafka import KafkaKey, KafkaSource
    from run_task.sources.brokers._message import MessageOptions, Stamp
    from run_task.sources.brokers._mqtt import MqttSource
    from run_task.sources.brokers._nats import NatsSource
    from run_task.sources.brokers._rabbit import RabbitSource
    from run_task.sources.brokers._redis import RedisStreamSource
    from run_task.sources.brokers._websocket import WebSocketSource
    from run_task.sources.files._arrow import ArrowFile
    from run_task.sources.files._csv import CsvFile
    from run_task.sources.files._json_lines import JsonLinesFile
    from run_task.sources.files._listing import FileOrder
    from run_task.sources.files._parquet import ParquetFile
    from run_task.sources.http._ingest import Confirm, HttpIngest
    from run_task.sources.journal._journal import Journal
    from run_task.sources.journal._segments import OnFull

__all__ = [
    "Arrived",
    "ArrowFile",
    "Backfill",
    "Batch",
    "Batched",
    "Confirm",
    "CsvFile",
    "FileOrder",
    "FrameSource",
    "HttpIngest",
    "Inbox",
    "Journal",
    "JsonLinesFile",
    "KafkaKey",
    "KafkaSource",
    "MessageOptions",
    "MqttSource",
    "NatsSource",
    "OnFault",
    "OnFull",
    "Paced",
    "PacedBatches",
    "ParquetFile",
    "Partitioned",
    "Playback",
    "PlaybackClock",
    "Polling",
    "Position",
    "Positioned",
    "RabbitSource",
    "RedisStreamSource",
    "Rows",
    "Source",
    "SourceInfo",
    "Stamp",
    "StdinJsonLines",
    "WebSocketSource",
    "about",
    "backfill",
    "paced",
    "polling",
]

_present(
    globals(),
    on_demand={
        "ArrowFile": "files._arrow",
        "Backfill": "_backfill",
        "Confirm": "http._ingest",
        "CsvFile": "files._csv",
        "FileOrder": "files._listing",
        "FrameSource": "_frame_source",
        "HttpIngest": "http._ingest",
        "Inbox": "_inbox",
        "Journal": "journal._journal",
        "JsonLinesFile": "files._json_lines",
        "MqttSource": "brokers._mqtt",
        "NatsSource": "brokers._nats",
        "OnFull": "journal._segments",
        "KafkaKey": "brokers._kafka",
        "KafkaSource": "brokers._kafka",
        "MessageOptions": "brokers._message",
        "Paced": "_paced",
        "PacedBatches": "_paced",
        "ParquetFile": "files._parquet",
        "Partitioned": "_partitioned",
        "PlaybackClock": "_playback_clock",
        "Polling": "_polling",
        "RabbitSource": "brokers._rabbit",
        "RedisStreamSource": "brokers._redis",
        "Stamp": "brokers._message",
        "StdinJsonLines": "_standard_input",
        "WebSocketSource": "brokers._websocket",
        "backfill": "_backfill",
        "paced": "_paced",
        "polling": "_polling",
    },
)
