"""Where rows come from: files, standard input, a callable that is polled."""

from run_task.sources._malformed import OnFault
from run_task.sources._paced import Paced, PacedBatches, PlaybackClock, paced
from run_task.sources._polling import Polling, polling
from run_task.sources._protocol import Batch, Batched, Source
from run_task.sources._standard_input import StdinJsonLines
from run_task.sources.files._csv import CsvFile
from run_task.sources.files._json_lines import JsonLinesFile
from run_task.sources.files._parquet import ParquetFile

__all__ = [
    "Batch",
    "Batched",
    "CsvFile",
    "JsonLinesFile",
    "OnFault",
    "Paced",
    "PacedBatches",
    "ParquetFile",
    "PlaybackClock",
    "Polling",
    "Source",
    "StdinJsonLines",
    "paced",
    "polling",
]
