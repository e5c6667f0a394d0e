"""A program that dies at each step of what a sink does to its files; started by
test_sink_rotation.

It forks a writer for each call of the system that changes files, which is killed just before that
call, and says what the sink then holds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from run_task import DataSet, TaskInterval, Window
from run_task.sinks import CsvSink, JsonLinesSink, Layout, Result, Rotation
from run_task.sinks.files import _disk as disk

CALLS = "write", "fsync", "link", "replace", "rename", "unlink", "truncate", "open"
ENDS = [1, 2, 3, 4, 5, 2, 6, 7, 1, 8, 9]
"""Windows, some of them written again: each in a flush of its own."""

Appended = CsvSink | JsonLinesSink


def opened(kind: str, path: Path, keep: int | None) -> Appended:
    sink: Appended
    match kind:
        case "csv":
            sink = CsvSink(path, rotation=Rotation(max_bytes=300, keep=keep))
        case "wide-csv":
            rotation = Rotation(max_bytes=410, keep=keep)
            sink = CsvSink(path, rotation=rotation, layout=Layout.WIDE)
        case _:
            sink = JsonLinesSink(path, rotation=Rotation(max_bytes=400, keep=keep))
    sink.begin("p")
    return sink


def window(end: int, mark: int) -> DataSet[Any]:
    return DataSet(Window(end - 1, end), {"a": mark, "b": end}, interval=TaskInterval.seconds(1))


def write(kind: str, sink: Appended, done: Callable[[int], object]) -> None:
    for mark, end in enumerate(ENDS):
        sink.write(Result.of("p", "s", window(end, mark)))
        if mark == 0 and kind != "wide-csv":  # which has one stage
            sink.write(Result.of("p", "seldom", window(1, mark)))
        sink.flush()
        done(mark)
    sink.close()


def die_at(step: int) -> None:
    """Be killed instead of the call of that number."""
    count = 0

    def counted(call: Any) -> Any:
        def called(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return called

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def without_links(*_: object, **__: object) -> None:
    raise OSError("there are no links")


def state(sink: Appended) -> dict[str, Any]:
    rows = [(row.stage, row.end, row.task, row.value) for row in sink.rows()]
    return {"rows": rows, "last": sink.last("s"), "seldom": sink.last("seldom")}


def main() -> None:
    kind, links = sys.argv[1:3]
    keep = int(sys.argv[3]) if sys.argv[3] != "all" else None
    if links == "none":
        # As on a system that has neither files without names nor links.
        setattr(disk, "_NAMELESS", 0)  # noqa: B010 it is private
        os.link = without_links
    step = 0
    killed = True
    while killed:
        step += 1
        folder = Path(tempfile.mkdtemp(dir=sys.argv[4]))
        read, told = os.pipe()
        sink = opened(kind, folder / "file.x", keep)
        sink.close()
        pid = os.fork()
        if pid == 0:
            sink = opened(kind, folder / "file.x", keep)
            die_at(step)
            write(kind, sink, lambda mark: os.writev(told, [b"%d\n" % mark]))  # noqa: B023 it is forked
            os._exit(0)
        os.close(told)
        with open(read) as lines:
            flushed = [int(line) for line in lines]
        killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        sink = opened(kind, folder / "file.x", keep)
        after = state(sink)
        files = sorted(path.name for path in folder.iterdir())
        sink.close()
        final = None
        if step % 3 == 0:
            sink = opened(kind, folder / "file.x", keep)
            write(kind, sink, lambda _: None)  # all again, as a program does that is started anew
            sink = opened(kind, folder / "file.x", keep)
            final = state(sink)
            sink.close()
        sys.stdout.write(f"{json.dumps([step, flushed, after, files, final])}\n")
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
