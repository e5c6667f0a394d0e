"""Waiting and waking: channels between threads and event loops."""

from run_task._public import present as _present
from run_task.sync._alarm import Alarm
from run_task.sync._channel import ChannelStats, Receiver, Sender, channel
from run_task.sync._overflow import Overflow

__all__ = ["Alarm", "ChannelStats", "Overflow", "Receiver", "Sender", "channel"]

_present(globals())
