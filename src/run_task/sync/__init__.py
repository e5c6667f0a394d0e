"""Waiting and waking: channels between threads and event loops."""

from run_task.sync._channel import Overflow, Receiver, Sender, channel

__all__ = ["Overflow", "Receiver", "Sender", "channel"]
