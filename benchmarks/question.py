"""What a section of the benchmarks asks, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.measure import Figure, Rounds


class Role(StrEnum):
    """What a line of a table tells of."""

    FLOOR = "floor"
    """The least that it can cost: what the lines below are a ratio to."""
    OURS = "ours"
    PEER = "peer"


class Bound(StrEnum):
    """On which side of its limit a goal lies."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


class Verdict(StrEnum):
    """Whether a goal was reached."""

    MET = "met"
    MISSED = "missed"


@dataclass(frozen=True)
class Goal:
    """What a figure has to be."""

    bound: Bound
    limit: float

    def judge(self, value: float) -> Verdict:
        match self.bound:
            case Bound.AT_MOST:
                return Verdict.MET if value <= self.limit else Verdict.MISSED
            case Bound.AT_LEAST:
                return Verdict.MET if value >= self.limit else Verdict.MISSED

    def __str__(self) -> str:
        return f"{self.bound} {self.limit:g}"


@dataclass(frozen=True)
class Line:
    """One line of a table.

    :param name: the system that was measured, or what was measured of it
    :param figure: what came out, in ``unit``
    :param ratio: the figure over the floor's of the same round
    :param goal: what the ratio has to be; where there is none, the figure
    """

    name: str
    role: Role
    unit: str
    figure: Figure
    ratio: Figure | None = None
    goal: Goal | None = None

    @property
    def verdict(self) -> Verdict | None:
        """Whether the median reaches the goal; None where there is no goal."""
        return None if self.goal is None else self.goal.judge(self.judged.median)

    @property
    def judged(self) -> Figure:
        """What the goal is about."""
        return self.figure if self.ratio is None else self.ratio


@dataclass(frozen=True)
class Question:
    """A question and its answer: one table."""

    title: str
    lines: list[Line]


@dataclass(frozen=True)
class Skipped:
    """A peer that could not be measured, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Effort:
    """How much is spent on a figure.

    :param repeats: how many times it is measured
    :param seconds: how long one measurement of a fast thing lasts; others take a multiple of it
    :param peers: whom to measure beside
    """

    repeats: int
    seconds: float
    peers: frozenset[str]


@dataclass(frozen=True)
class Section:
    """Questions that belong together.

    :param name: what ``--only`` and the report call it
    :param answer: measures, and gives tables as they get ready
    :param peers: whom it can measure beside
    """

    name: str
    answer: Callable[[Effort], Iterator[Question | Skipped]]
    peers: tuple[str, ...] = ()


def compared(
    rounds: Rounds, unit: str, role: Role = Role.OURS, goals: Mapping[str, Goal] | None = None
) -> list[Line]:
    """The lines of systems that were measured side by side.

    :param rounds: what each of them took; the first is the floor
    :param role: what the others are
    :param goals: what the ratios to the floor have to be, by name
    """
    floor, *others = rounds
    base = rounds[floor]
    return [
        Line(floor, Role.FLOOR, unit, Figure.of(base)),
        *(
            Line(
                name,
                role,
                unit,
                Figure.of(rounds[name]),
                Figure.of_ratios(rounds[name], base),
                (goals or {}).get(name),
            )
            for name in others
        ),
    ]
