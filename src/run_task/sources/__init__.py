"""Where rows come from: files, standard input, a callable that is polled."""

from run_task.sources.csvfile import CsvFile
from run_task.sources.faults import OnFault
from run_task.sources.jsonlines import JsonLinesFile
from run_task.sources.paced import Paced, PacedBatches, PlaybackClock, paced
from run_task.sources.parquetfile import ParquetFile
from run_task.sources.polling import Polling, polling
from run_task.sources.protocol import Batch, Batched, Source
from run_task.sources.standard_input import StdinJsonLines

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
