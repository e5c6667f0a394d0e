"""What comes next is read while what came before is used."""

from __future__ import annotations

import threading
from collections.abc import Generator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Generator[T]) -> Generator[T]:
    """The same, of which a thread makes the next one while the one before is used, and no more:
    so no more than two are in memory.

    What is raised comes where it would have come. The thread ends with the last one, and when this
    is closed, for which what it is at is waited for.

    :param items: what makes them; it is closed by the thread
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    thread = threading.Thread(
        target=_make, args=(items, asked, made), name="run-task reads ahead", daemon=True
    )
    thread.start()
    try:
        asked.put(True)
        while (one := made.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            asked.put(True)
            yield one[0]
    finally:
        asked.put(False)
        if threading.current_thread() is not thread:  # where garbage may be collected, too
            thread.join()


def _make(
    items: Generator[T],
    asked: SimpleQueue[bool],
    made: SimpleQueue[tuple[T] | BaseException | None],
) -> None:
    try:
        while asked.get():
            for item in items:
                made.put((item,))
                break
            else:
                made.put(None)
                return
    except BaseException as error:  # for who asked
        made.put(error)
    finally:
        items.close()
