"""The watch looks while anything is in hand, and sleeps when nothing is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
from tests.support.threads import PATIENCE, eventually, together

from run_task.sync._watch import Watch


class Hand:
    """Something that is busy at times."""

    def __init__(self, pause: float | None = None) -> None:
        self.pause = pause
        self.looks = 0
        self.looked = threading.Event()

    def look(self) -> float | None:
        self.looks += 1
        self.looked.set()
        return self.pause


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    for what in tuple(made.watched):
        made.remove(what)
    made.settle()


def test_it_has_no_thread_before_it_is_woken(watch: Watch) -> None:
    before = threading.active_count()
    watch.add(Hand())
    assert watch.asleep
    assert threading.active_count() == before
    watch.wake()
    assert threading.active_count() == before + 1


def test_it_looks_again_and_again_while_something_is_in_hand(watch: Watch) -> None:
    hand = Hand(pause=0.001)
    watch.add(hand)
    watch.wake()
    eventually(lambda: hand.looks > 10)
    assert not watch.asleep


def test_it_sleeps_when_nothing_is_and_is_woken_by_who_takes_something(watch: Watch) -> None:
    hand = Hand()
    watch.add(hand)
    watch.wake()
    eventually(lambda: watch.asleep)
    looks = hand.looks
    time.sleep(0.02)  # it would look four times by now
    assert hand.looks <= looks + 1  # the last look before it sleeps
    hand.pause = 0.001
    watch.wake()
    eventually(lambda: hand.looks > looks + 5)


def test_who_wakes_it_for_nothing_does_not_keep_the_next_from_waking_it(watch: Watch) -> None:
    watch.wake()  # as one that is given up after it was removed
    assert watch.asleep
    hand = Hand()
    watch.add(hand)
    watch.wake()
    assert hand.looked.wait(PATIENCE)


def test_who_wakes_it_in_the_moment_of_its_end_does_not_keep_the_next_from_waking_it(
    watch: Watch, switching: None
) -> None:
    for _ in range(300):
        last, following = Hand(), Hand()
        watch.add(last)
        watch.wake()
        together(partial(watch.remove, last), watch.wake)
        watch.settle()
        assert watch.asleep
        watch.add(following)
        watch.wake()
        assert following.looked.wait(PATIENCE)
        watch.remove(following)


def test_a_hand_that_is_taken_up_in_the_moment_before_it_sleeps_is_seen(
    watch: Watch, switching: None
) -> None:
    # Each round may fall into that moment; one that is not seen waits forever.
    hand = Hand()
    watch.add(hand)
    for _ in range(300):
        hand.looked.clear()
        hand.pause = 0.0
        if watch.asleep:
            watch.wake()
        assert hand.looked.wait(PATIENCE)
        hand.pause = None
        eventually(lambda: watch.asleep or hand.looks % 7 == 0)


def test_one_that_cannot_be_looked_after_costs_the_others_nothing(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def look(self) -> float | None:
            raise ValueError("no good")

    hand = Hand(pause=0.001)
    watch.add(Broken())
    watch.add(hand)
    watch.wake()
    eventually(lambda: hand.looks > 2)
    assert "no good" in caplog.text


def test_its_thread_ends_with_the_last_that_it_looks_after_and_begins_anew(watch: Watch) -> None:
    before = threading.active_count()
    for _ in range(3):
        first, second = Hand(pause=0.001), Hand(pause=0.001)
        watch.add(first)
        watch.add(second)
        watch.wake()
        eventually(lambda: first.looks and second.looks)  # noqa: B023
        watch.remove(first)
        watch.remove(second)
        watch.settle()
        assert threading.active_count() == before
        assert watch.asleep


def test_where_no_thread_can_be_started_the_log_says_so(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    watch.add(Hand())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        watch.wake()
    assert watch.asleep
    assert "can't start new thread" in caplog.text
    watch.wake()
    eventually(lambda: watch.asleep)
