"""Where results go: files, databases, a callback."""

from typing import TYPE_CHECKING

from run_task._public import present as _present
from run_task.sinks._callback import CallbackSink
from run_task.sinks._layout import Layout
from run_task.sinks._protocol import DurableSink, Result, Row, Sink

if TYPE_CHECKING:
    from run_task.sinks._sql import SqlSink
    from run_task.sinks.encoding._json import decode, encode
    from run_task.sinks.encoding._records import EnumMember, Record
    from run_task.sinks.files._csv import CsvSink
    from run_task.sinks.files._json_lines import JsonLinesSink
    from run_task.sinks.files._parquet import ParquetSink
    from run_task.sinks.files._rotation import Rotation

__all__ = [
    "CallbackSink",
    "CsvSink",
    "DurableSink",
    "EnumMember",
    "JsonLinesSink",
    "Layout",
    "ParquetSink",
    "Record",
    "Result",
    "Rotation",
    "Row",
    "Sink",
    "SqlSink",
    "decode",
    "encode",
]

_present(
    globals(),
    on_demand={
        "CsvSink": "files._csv",
        "EnumMember": "encoding._records",
        "JsonLinesSink": "files._json_lines",
        "ParquetSink": "files._parquet",
        "Record": "encoding._records",
        "Rotation": "files._rotation",
        "SqlSink": "_sql",
        "decode": "encoding._json",
        "encode": "encoding._json",
    },
)
