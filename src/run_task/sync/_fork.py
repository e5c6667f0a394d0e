"""After a fork: state of its parent that the child must not use.

A child has copies of all objects, but none of the threads, and descriptors and processes that are
still the parent's.
"""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class Forgets(Protocol):
    """Something that has threads, processes or locks."""

    def after_fork(self) -> None:
        """Begin anew, in the child: use nothing of the parent's, and end nothing of it."""
        ...


_all: Final[WeakSet[Forgets]] = WeakSet()


def forget_after_fork(this: Forgets) -> None:
    """Have this begin anew in every child that is forked while it lives.

    :param this: referred to weakly
    """
    _all.add(this)


def _after_fork() -> None:
    for this in tuple(_all):  # no other thread is there to change it
        this.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
