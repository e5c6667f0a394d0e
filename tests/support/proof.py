"""How much the tests do: some in each run, and all that ``make proof`` asks for."""

from __future__ import annotations

import os
from typing import Final, TypeVar

T = TypeVar("T")

PROOF: Final = "RUN_TASK_PROOF" in os.environ


def in_proof(proof: T, *, short: T) -> T:
    """The first in a proof; else the second, with which a fault shows, too, if less surely."""
    return proof if PROOF else short


def examples(proof: int) -> int:
    """How many examples of Hypothesis' a test is tried with, which are others in each run: so many
    in a proof; else a third of them."""
    return in_proof(proof, short=max(10, proof // 3))
