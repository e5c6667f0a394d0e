"""Files as sinks."""

from run_task.sinks.files._csv import CsvSink
from run_task.sinks.files._json_lines import JsonLinesSink
from run_task.sinks.files._parquet import ParquetSink

__all__ = ["CsvSink", "JsonLinesSink", "ParquetSink"]
