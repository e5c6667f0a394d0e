"""The time of a recording while it is played."""

from __future__ import annotations

from run_task.sync._alarm import Alarm
from run_task.time._clock import Clock


class PlaybackClock:
    """The time of a recording while it is played: at its first row, that row's timestamp.

    Both of its clocks run at the speed of the playback.

    :param clock: the clock by which the recording is played
    :param first_ns: the timestamp of the first row, in nanoseconds since the Unix epoch
    :param speed: how many seconds of the recording pass in a second
    """

    def __init__(self, clock: Clock, first_ns: int, speed: float) -> None:
        self._clock = clock
        self._first_ns = first_ns
        # As a fraction, so that a wait for a time ends when the clock reads it, not before.
        self._numerator, self._denominator = float(speed).as_integer_ratio()
        self._origin_ns = clock.monotonic_ns()

    def time_ns(self) -> int:
        """Nanoseconds since the Unix epoch, in the time of the recording."""
        return self._first_ns + self.monotonic_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds of the recording since its first row."""
        passed_ns = self._clock.monotonic_ns() - self._origin_ns
        return passed_ns * self._numerator // self._denominator

    def wait(self, alarm: Alarm, until_ns: int) -> None:
        """Wait until the alarm rings or the recording has been played so far."""
        passed_ns = -(-until_ns * self._denominator // self._numerator)
        self._clock.wait(alarm, self._origin_ns + passed_ns)
