"""Files as sources."""

from run_task.sources.files._arrow import ArrowFile
from run_task.sources.files._csv import CsvFile
from run_task.sources.files._json_lines import JsonLinesFile
from run_task.sources.files._listing import FileOrder
from run_task.sources.files._parquet import ParquetFile

__all__ = ["ArrowFile", "CsvFile", "FileOrder", "JsonLinesFile", "ParquetFile"]
