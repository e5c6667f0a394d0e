"""Where results go: files, databases, web addresses, a callback."""

from typing import TYPE_CHECKING

from run_task._public import present as _present
from run_task.sinks._callback import CallbackSink
from run_task.sinks._layout import Layout
from run_task.sinks._protocol import (
    BulkSink,
    DirectSink,
    DurableSink,
    Result,
    ResultBatch,
    Row,
    ShardedSink,
    Sink,
    StageOutput,
    TypedSink,
)

if TYPE_CHECKING:
    from run_task.sinks._alerts import AlertChange, alert_changes
    from run_task.sinks._notify import NotifySink
    from run_task.sinks._spool import Spool
    from run_task.sinks._sql import SqlSink
    from run_task.sinks._webhook import WebhookSink
    from run_task.sinks.brokers._kafka import KafkaSink
    from run_task.sinks.brokers._mqtt import MqttSink
    from run_task.sinks.brokers._nats import NatsSink
    from run_task.sinks.encoding._json import decode, encode
    from run_task.sinks.encoding._records import EnumMember, Record
    from run_task.sinks.files._csv import CsvSink
    from run_task.sinks.files._json_lines import JsonLinesSink
    from run_task.sinks.files._parquet import ParquetSink
    from run_task.sinks.files._rotation import Rotation

__all__ = [
    "AlertChange",
    "BulkSink",
    "CallbackSink",
    "CsvSink",
    "DirectSink",
    "DurableSink",
    "EnumMember",
    "JsonLinesSink",
    "KafkaSink",
    "Layout",
    "MqttSink",
    "NatsSink",
    "NotifySink",
    "ParquetSink",
    "Record",
    "Result",
    "ResultBatch",
    "Rotation",
    "Row",
    "ShardedSink",
    "Sink",
    "Spool",
    "SqlSink",
    "StageOutput",
    "TypedSink",
    "WebhookSink",
    "alert_changes",
    "decode",
    "encode",
]

_present(
    globals(),
    on_demand={
        "AlertChange": "_alerts",
        "CsvSink": "files._csv",
        "EnumMember": "encoding._records",
        "JsonLinesSink": "files._json_lines",
        "KafkaSink": "brokers._kafka",
        "MqttSink": "brokers._mqtt",
        "NatsSink": "brokers._nats",
        "NotifySink": "_notify",
        "ParquetSink": "files._parquet",
        "Record": "encoding._records",
        "Rotation": "files._rotation",
        "Spool": "_spool",
        "SqlSink": "_sql",
        "WebhookSink": "_webhook",
        "alert_changes": "_alerts",
        "decode": "encoding._json",
        "encode": "encoding._json",
    },
)
