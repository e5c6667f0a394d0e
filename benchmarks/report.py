"""What came out: as tables for a person, as JSON for the rest."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import short
from benchmarks.question import Effort, Line, Question, Role, Skipped, Verdict

_STYLES = {Role.FLOOR: "dim", Role.OURS: "bold", Role.PEER: ""}


@dataclass
class Answers:
    """What one section found."""

    questions: list[Question] = field(default_factory=list[Question])
    skipped: list[Skipped] = field(default_factory=list[Skipped])


def show(found: Question | Skipped, console: Console) -> None:
    """Print one table, or why there is something that it does not show."""
    if isinstance(found, Skipped):
        console.print(f"{found.name} is skipped: {found.why}", style="dim", markup=False)
        return
    table = Table(title=found.title, title_justify="left")
    table.add_column("")
    for column in ("median (spread)", "unit", "x floor", "goal", ""):
        table.add_column(column, justify="left" if column == "unit" else "right")
    for line in found.lines:
        ratio = "" if line.ratio is None else short(line.ratio.median)
        goal = "" if line.goal is None else str(line.goal)
        verdict = "[red]missed[/]" if line.verdict is Verdict.MISSED else line.verdict or ""
        table.add_row(
            line.name, str(line.figure), line.unit, ratio, goal, verdict, style=_STYLES[line.role]
        )
    console.print(table)


def sum_up(report: dict[str, Answers], console: Console) -> None:
    """Print how many goals were met, and which were not."""
    judged = [
        (question, line)
        for answers in report.values()
        for question in answers.questions
        for line in question.lines
        if line.goal is not None
    ]
    missed = [pair for pair in judged if pair[1].verdict is Verdict.MISSED]
    console.print(f"{len(judged) - len(missed)} of {len(judged)} goals are met.")
    for question, line in missed:
        console.print(
            f"missed: {question.title}: {line.name}: {line.judged}, not {line.goal}", soft_wrap=True
        )


def write(report: dict[str, Answers], effort: Effort, load: float, path: Path) -> None:
    """Write every figure with its spread.

    :param load: the machine's load average before the first measurement
    """
    everything = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "load": load,
        "repeats": effort.repeats,
        "seconds": effort.seconds,
        "sections": {
            name: {
                "questions": [
                    {
                        "title": question.title,
                        "lines": [_as_json(line) for line in question.lines],
                    }
                    for question in answers.questions
                ],
                "skipped": {skipped.name: skipped.why for skipped in answers.skipped},
            }
            for name, answers in report.items()
        },
    }
    path.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n")


def _as_json(line: Line) -> dict[str, Any]:
    return {**asdict(line), "verdict": line.verdict}
