"""Bytes that are still being written: pipes, and files that are followed."""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples
from tests.support.threads import PATIENCE, beside, eventually

from run_task import ConfigError, SystemClock, VirtualClock
from run_task.sources.files._live import Followed, Following, Pipe, following

POLL_NS = 250_000_000

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


def read_all(place: Pipe | Followed, got: list[list[bytes]]) -> None:
    """Each file that there is, by its blocks."""
    if isinstance(place, Followed):
        follow_all(place, got)
        return
    blocks: list[bytes] = []
    got.append(blocks)
    with closing(place.open()) as stream:
        while block := stream.read():
            blocks.append(block)
        assert stream.failure is None, stream.failure


def follow_all(place: Followed, got: list[list[bytes]]) -> None:
    blocks: list[bytes] = []
    got.append(blocks)
    while not place.stopped:
        turn = place.mark.turn
        if place.look():
            if place.mark.turn != turn:  # it was emptied
                got.append(blocks := [])
            line = place.mark.line
            with closing(place.open()) as stream:
                while block := stream.read():
                    blocks.append(block)
                    line += block.count(b"\n")
                    place.hold(line)
                    place.let_go()
                assert stream.failure is None, stream.failure
            if place.end_pass():
                got.append(blocks := [])
                continue
        place.wait()
    place.close()


def lines(got: list[list[bytes]]) -> list[bytes]:
    """What was read of each file; of the last, what there is so far."""
    return [b"".join(blocks) for blocks in got]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


class Reading:
    """A thread that follows a file, while a test moves its clock."""

    def __init__(self, path: Path, clock: VirtualClock) -> None:
        self.got: list[list[bytes]] = []
        self._clock = clock
        self.place = Followed(path, Following(POLL_NS, clock))

    def sees(self, *expected: bytes) -> None:
        """It comes to have read this of each file."""

        def seen() -> bool:
            self._clock.advance("250ms")
            return [text for text in lines(self.got) if text] == list(expected)

        eventually(seen)

    def sees_no_more(self) -> None:
        before = lines(self.got)
        for _ in range(3):
            self._clock.advance("250ms")
        assert lines(self.got) == before


@pytest.fixture
def reading(path: Path, clock: VirtualClock) -> Iterator[Reading]:
    reading = Reading(path, clock)
    with beside(lambda: read_all(reading.place, reading.got)):
        yield reading
        reading.place.stop()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


# Files that are followed


def test_what_is_appended_comes_by_whole_lines(path: Path, clock: VirtualClock) -> None:
    path.write_bytes(b"1\n2\n")
    reading = Reading(path, clock)
    with beside(lambda: read_all(reading.place, reading.got)):
        reading.sees(b"1\n2\n")
        append(path, b"3\nhalf")
        reading.sees(b"1\n2\n3\n")
        append(path, " of caf\u00e9".encode()[:-1])  # and half of a character
        reading.sees_no_more()
        append(path, "\u00e9\n".encode()[1:])
        reading.sees(b"1\n2\n3\n" + "half of caf\u00e9\n".encode())
        append(path, b"not whole")
        reading.sees_no_more()
        reading.place.stop()
    assert lines(reading.got) == [b"1\n2\n3\n" + "half of caf\u00e9\n".encode()]


def test_a_file_may_come_to_be_later(path: Path, reading: Reading) -> None:
    reading.sees_no_more()
    path.write_bytes(b"1\n")
    reading.sees(b"1\n")


def test_a_file_that_is_renamed_and_made_anew(path: Path, reading: Reading) -> None:
    path.write_bytes(b"1\n2\n")
    reading.sees(b"1\n2\n")
    old = path.with_suffix(".1")
    path.rename(old)
    append(old, b"3\n")  # by who has not noticed yet
    reading.sees(b"1\n2\n3\n")
    append(old, b"4\nlast")
    path.write_bytes(b"5\n")
    reading.sees(b"1\n2\n3\n4\nlast", b"5\n")
    append(path, b"6\n")
    reading.sees(b"1\n2\n3\n4\nlast", b"5\n6\n")


def test_a_file_that_is_replaced_or_removed_and_made_anew(path: Path, reading: Reading) -> None:
    path.write_bytes(b"1\n")
    reading.sees(b"1\n")
    other = path.with_suffix(".new")
    other.write_bytes(b"2\n")
    os.replace(other, path)
    reading.sees(b"1\n", b"2\n")
    path.unlink()
    reading.sees_no_more()
    path.write_bytes(b"3\n")
    reading.sees(b"1\n", b"2\n", b"3\n")


def test_a_file_that_was_made_anew_and_is_still_empty(path: Path, reading: Reading) -> None:
    path.write_bytes(b"1\n")
    reading.sees(b"1\n")
    old = path.with_suffix(".1")
    path.rename(old)
    path.touch()  # by logrotate, and who writes is told of it later
    reading.sees_no_more()
    append(old, b"2\n")
    reading.sees(b"1\n2\n")
    append(old, b"3\n")
    append(path, b"4\n")
    reading.sees(b"1\n2\n3\n", b"4\n")


def test_a_file_that_is_copied_and_emptied(
    path: Path, reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"1\n2\n12")  # of 12.5, it may be
    reading.sees(b"1\n2\n")
    reading.sees_no_more()
    os.truncate(path, 0)
    append(path, b"3\n")
    reading.sees(b"1\n2\n", b"3\n")
    append(path, b"4\n")
    reading.sees(b"1\n2\n", b"3\n4\n")
    path.write_bytes(b"longer than before\n")
    reading.sees(b"1\n2\n", b"3\n4\n", b"longer than before\n")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all(text.startswith(f"{path} was emptied while it is followed") for text in told)


def test_rotation_by_links_is_followed(path: Path, reading: Reading, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"1\n")
    second.write_bytes(b"2\n")
    path.symlink_to(first)
    reading.sees(b"1\n")
    path.unlink()
    path.symlink_to(second)
    reading.sees(b"1\n", b"2\n")


def test_no_line_is_lost_or_comes_twice_while_files_rotate(path: Path, clock: VirtualClock) -> None:
    reading = Reading(path, clock)
    written = [b"%d\n" % number for number in range(3000)]

    def write() -> None:
        for start in range(0, len(written), 100):
            if start:
                path.rename(path.with_suffix(f".{start}"))
            with path.open("wb", buffering=0) as file:
                for line in written[start : start + 100]:
                    file.write(line[:1])
                    file.write(line[1:])
            reading.sees(*(b"".join(written[at : at + 100]) for at in range(0, start + 1, 100)))

    with beside(lambda: read_all(reading.place, reading.got)):
        write()
        reading.place.stop()
    assert b"".join(lines(reading.got)) == b"".join(written)


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.sampled_from(["write", "rename", "make anew", "reopen"]), max_size=12))
def test_no_line_is_lost_whenever_a_program_is_told_that_its_file_was_renamed(
    steps: list[str],
) -> None:
    clock, written = VirtualClock(), b""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        reading = Reading(path, clock)

        def seen() -> bool:
            clock.advance("250ms")
            return b"".join(lines(reading.got)) == written

        with ExitStack() as stack:
            stack.enter_context(beside(lambda: read_all(reading.place, reading.got)))
            stack.callback(reading.place.stop)
            program = path.open("ab", buffering=0)
            stack.callback(lambda: program.close())  # noqa: PLW0108 of the last one
            for number, step in enumerate(steps):
                if step == "write":
                    line = b"%d\n" % number
                    program.write(line)
                    written += line
                elif step == "rename" and path.exists() and path.stat().st_size:
                    path.rename(path.with_suffix(f".{number}"))
                elif step == "make anew":
                    path.touch()
                elif step == "reopen":
                    program.close()
                    program = path.open("ab", buffering=0)
                eventually(seen)


def test_it_is_looked_at_no_more_often_than_said(path: Path) -> None:
    class Counting(VirtualClock):
        waits = 0

        def wait(self, alarm: object, until_ns: int) -> None:
            self.waits += 1
            super().wait(alarm, until_ns)  # type: ignore[arg-type]  # pyright: ignore

    clock = Counting()
    path.write_bytes(b"1\n")
    place = Followed(path, Following(POLL_NS, clock))
    got: list[list[bytes]] = []
    with beside(lambda: read_all(place, got)):
        eventually(lambda: clock.waits == 1)
        append(path, b"2\n")
        clock.advance("249ms")
        assert lines(got) == [b"1\n"]
        clock.advance("1ms")
        eventually(lambda: lines(got) == [b"1\n2\n"])
        place.stop()
    assert clock.waits <= 4


@pytest.mark.parametrize("there", [False, True])
def test_it_ends_at_once_when_it_is_stopped(path: Path, there: bool) -> None:
    if there:
        path.write_bytes(b"1\n")
    place = Followed(path, Following(3600 * 10**9, SystemClock()))
    got: list[list[bytes]] = []
    with beside(lambda: read_all(place, got)) as end:
        eventually(lambda: got)
        place.stop()
        place.stop()
        end.result(PATIENCE)
    assert place.stopped


def test_what_cannot_be_read_is_told(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        Followed(path, Following(POLL_NS, VirtualClock())).look()


def test_how_often_it_is_looked_at_is_checked() -> None:
    assert following(False, "1s", None, "here") is None
    found = following(True, "1s", None, "here")
    assert found is not None
    assert found.poll_ns == 10**9
    for poll in ("soon", "0s"):
        with pytest.raises(ConfigError, match="here: poll="):
            following(True, poll, None, "here")


# Pipes


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_pipe_is_read_until_all_who_write_are_gone(pipe: Path) -> None:
    got: list[list[bytes]] = []
    with (
        beside(lambda: read_all(Pipe(pipe), got)),
        pipe.open("wb", buffering=0) as first,
        pipe.open("wb", buffering=0) as second,
    ):
        first.write(b"1\n2")
        eventually(lambda: lines(got) == [b"1\n"])
        second.write(b"3\n")
        eventually(lambda: lines(got) == [b"1\n23\n"])
        first.write(b"the last")
    assert lines(got) == [b"1\n23\nthe last"]


def test_what_comes_by_a_pipe_may_be_compressed(pipe: Path) -> None:
    got: list[list[bytes]] = []
    with beside(lambda: read_all(Pipe(pipe), got)):
        pipe.write_bytes(gzip.compress(b"1\n2\n"))
    assert lines(got) == [b"1\n2\n"]


def test_a_pipe_nobody_writes_to_ends_at_once_when_it_is_stopped(pipe: Path) -> None:
    place = Pipe(pipe)
    got: list[list[bytes]] = []
    with beside(lambda: read_all(place, got)) as end:
        eventually(lambda: got)
        place.stop()
        place.stop()
        end.result(PATIENCE)
    assert lines(got) == [b""]
    place = Pipe(pipe)
    with beside(lambda: read_all(place, got)) as end, pipe.open("wb", buffering=0) as writer:
        writer.write(b"1\nhalf")
        eventually(lambda: lines(got)[-1:] == [b"1\n"])
        place.stop()
        end.result(PATIENCE)
        assert lines(got)[-1] == b"1\n"


def test_a_pipe_that_was_stopped_before_gives_nothing(pipe: Path) -> None:
    place = Pipe(pipe)
    place.stop()
    with closing(place.open()) as stream:
        assert stream.read() == b""


def test_a_pipe_is_read_once(pipe: Path) -> None:
    place = Pipe(pipe)
    with closing(place.open()), pytest.raises(OSError, match="it has been read before"):
        place.open()


def test_no_descriptor_is_left_open(pipe: Path, path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    before = descriptors()
    for _ in range(3):
        got: list[list[bytes]] = []
        with beside(lambda: read_all(Pipe(pipe), got)):  # noqa: B023 it ends before the next one
            pipe.write_bytes(b"1\n")
        path.write_bytes(b"1\n")
        place = Followed(path, Following(POLL_NS, VirtualClock()))
        assert place.look()
        with contextlib.closing(place.open()) as stream:
            assert stream.read() == b"1\n"
        place.close()
    assert descriptors() == before
