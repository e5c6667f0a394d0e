"""Where results go: files, databases, a callback."""

from run_task._public import present as _present
from run_task.sinks._callback import CallbackSink
from run_task.sinks._protocol import DurableSink, Result, Row, Sink
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

_present(globals())
