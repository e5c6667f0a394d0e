"""Where rows come from: files, standard input, a callable that is polled."""

from typing import TYPE_CHECKING

from run_task._public import present as _present
from run_task.sources._arrived import Arrived
from run_task.sources._batch import Batch, Batched
from run_task.sources._faults import OnFault
from run_task.sources._protocol import Playback, Rows, Source, SourceInfo, about

if TYPE_CHECKING:
    from run_task.sources._frame_source import FrameSource
    from run_task.sources._paced import Paced, PacedBatches, paced
    from run_task.sources._playback_clock import PlaybackClock
    from run_task.sources._polling import Polling, polling
    from run_task.sources._standard_input import StdinJsonLines
    from run_task.sources.files._arrow import ArrowFile
    from run_task.sources.files._csv import CsvFile
    from run_task.sources.files._json_lines import JsonLinesFile
    from run_task.sources.files._listing import FileOrder
    from run_task.sources.files._parquet import ParquetFile

__all__ = [
    "Arrived",
    "ArrowFile",
    "Batch",
    "Batched",
    "CsvFile",
    "FileOrder",
    "FrameSource",
    "JsonLinesFile",
    "OnFault",
    "Paced",
    "PacedBatches",
    "ParquetFile",
    "Playback",
    "PlaybackClock",
    "Polling",
    "Rows",
    "Source",
    "SourceInfo",
    "StdinJsonLines",
    "about",
    "paced",
    "polling",
]

_present(
    globals(),
    on_demand={
        "ArrowFile": "files._arrow",
        "CsvFile": "files._csv",
        "FileOrder": "files._listing",
        "FrameSource": "_frame_source",
        "JsonLinesFile": "files._json_lines",
        "Paced": "_paced",
        "PacedBatches": "_paced",
        "ParquetFile": "files._parquet",
        "PlaybackClock": "_playback_clock",
        "Polling": "_polling",
        "StdinJsonLines": "_standard_input",
        "paced": "_paced",
        "polling": "_polling",
    },
)
