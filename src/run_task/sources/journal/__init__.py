"""Journals: the rows of live feeds, kept on disk with when they came."""

from run_task._public import present as _present
from run_task.sources.journal._journal import Journal
from run_task.sources.journal._segments import OnFull

__all__ = ["Journal", "OnFull"]

_present(globals())
