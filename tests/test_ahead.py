"""What comes next is read while what came before is used."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.threads import PATIENCE

from run_task import VirtualClock
from run_task.sources import CsvFile, JsonLinesFile
from run_task.sources.files._ahead import ahead

pa = pytest.importorskip("pyarrow")


class Numbers:
    """Numbers, and what becomes of them who makes them.

    :param count: how many there are
    :param error: what is raised after them
    """

    def __init__(self, count: int, error: BaseException | None = None) -> None:
        self.made: list[int] = []
        self.makers: set[threading.Thread] = set()
        self.closed = threading.Event()
        self._count = count
        self._error = error

    def __iter__(self) -> Generator[int]:
        try:
            for number in range(self._count):
                self.makers.add(threading.current_thread())
                self.made.append(number)
                yield number
            if self._error is not None:
                raise self._error
        finally:
            self.closed.set()


def reading() -> list[str]:
    """The threads that read ahead now."""
    return [t.name for t in threading.enumerate() if t.name == "run-task reads ahead"]


def test_all_of_them_come_in_their_order_from_one_thread() -> None:
    numbers = Numbers(1000)
    assert list(ahead(iter(numbers))) == list(range(1000))
    (maker,) = numbers.makers
    assert maker is not threading.current_thread()
    assert numbers.closed.is_set()
    assert not maker.is_alive()


def test_no_more_than_one_is_made_ahead() -> None:
    numbers = Numbers(1000)
    found = ahead(iter(numbers))
    for number in range(10):
        assert next(found) == number
        assert len(numbers.made) <= number + 2
    found.close()
    assert 10 <= len(numbers.made) <= 11
    assert numbers.closed.is_set()
    assert not reading()


@pytest.mark.parametrize("error", [OSError("gone"), SystemExit(3), KeyboardInterrupt()])
def test_what_is_raised_comes_after_all_that_came_before_it(error: BaseException) -> None:
    found = ahead(iter(Numbers(3, error)))
    assert [next(found), next(found), next(found)] == [0, 1, 2]
    with pytest.raises(type(error)) as raised:
        next(found)
    assert raised.value is error
    assert not reading()


def test_the_thread_ends_when_nobody_wants_more() -> None:
    numbers = Numbers(1000)
    found = ahead(iter(numbers))
    assert next(found) == 0
    del found
    assert numbers.closed.wait(PATIENCE)
    assert not reading()


def test_one_that_is_closed_before_it_begins_starts_no_thread() -> None:
    ahead(iter(Numbers(3))).close()
    assert not reading()


def rows(kind: type[Any], path: Path, **options: Any) -> Iterator[Any]:
    return iter(kind(path, columns={"x": float}, **options))


@pytest.mark.parametrize("kind", [CsvFile, JsonLinesFile])
def test_a_file_is_read_ahead_where_there_are_cores_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Any]
) -> None:
    path = tmp_path / "file"
    line, head = ("1,2\n", "timestamp,x\n") if kind is CsvFile else ('{"timestamp":1,"x":2}\n', "")
    path.write_text(head + line * ((4 << 20) // len(line)))  # several blocks
    for cores in (1, 2):
        monkeypatch.setattr(pa, "cpu_count", lambda cores=cores: cores)
        found = rows(kind, path)
        assert next(found) == (1, {"x": 2.0})
        assert len(reading()) == cores - 1
        del found
        assert not reading()


def test_a_file_that_is_followed_is_not_read_ahead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pa, "cpu_count", lambda: 2)
    path = tmp_path / "file"
    path.write_text('{"timestamp":1,"x":2}\n')
    found = rows(JsonLinesFile, path, follow=True, clock=VirtualClock())
    assert next(found) == (1, {"x": 2.0})
    assert not reading()
