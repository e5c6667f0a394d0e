"""Where results go: files, databases, a callback."""

from run_task.sinks.callback import CallbackSink
from run_task.sinks.csvfile import CsvSink
from run_task.sinks.jsonlines import JsonLinesSink
from run_task.sinks.parquet import ParquetSink
from run_task.sinks.protocol import DurableSink, Row, Sink
from run_task.sinks.sql import SqlSink

__all__ = [
    "CallbackSink",
    "CsvSink",
    "DurableSink",
    "JsonLinesSink",
    "ParquetSink",
    "Row",
    "Sink",
    "SqlSink",
]
