"""The picture of cost against the number of tasks."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from benchmarks.dispatch import GOALS, OURS
from benchmarks.question import Question, Role


def draw(questions: list[Question], path: Path) -> None:
    """Draw the answers of the dispatch section.

    :raises ImportError: if matplotlib is not installed
    """
    # Imported here and as Any: it is in the environment of `make bench`, not in that of the checks.
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "run-task"  # the same figures give the same file
    pyplot: Any = importlib.import_module("matplotlib.pyplot")

    ticker: Any = importlib.import_module("matplotlib.ticker")

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    costs: dict[str, list[float]] = {}
    for question in questions:  # one for each number of tasks
        for line in question.lines:
            if line.unit == "µs" and (line.role is not Role.OURS or line.name == OURS):
                costs.setdefault(line.name, []).append(line.figure.median / 1e6)
    for name, medians in sorted(costs.items(), key=lambda item: -item[1][-1]):
        emphasis = {"lw": 3, "color": "black", "zorder": 3} if name == OURS else {"lw": 1.3}
        axes.plot(list(GOALS), medians, marker="o", label=name, **emphasis)
    axes.set(xscale="log", yscale="log", xlabel="trivial tasks", ylabel="a tick")
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:.0f}"))
    axes.yaxis.set_major_locator(ticker.LogLocator(numticks=20))
    axes.yaxis.set_major_formatter(ticker.EngFormatter(unit="s"))
    axes.set_title(f"What a tick costs, saturated, on {os.cpu_count()} cores")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
