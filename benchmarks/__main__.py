"""Run the benchmarks: ``make bench``, or ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.picture import draw
from benchmarks.question import Effort, Skipped
from benchmarks.report import Answers, show, sum_up, write
from benchmarks.sections import SECTIONS

RESULTS = Path(__file__).parent / "results"
LATEST = "latest.json"
PICTURES = Path(__file__).parent.parent / "docs" / "images"
PEERS = list(dict.fromkeys(peer for section in SECTIONS.values() for peer in section.peers))


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure run-task beside a bare loop and its peers.",
        epilog="A run of everything, with no option given, is written to benchmarks/results/, "
        "and drawn in docs/images/.",
    )
    parser.add_argument("--quick", action="store_true", help="one short repeat: a look, no result")
    parser.add_argument(
        "--only", type=names, metavar="SECTION,...", help=f"of {', '.join(SECTIONS)}"
    )
    parser.add_argument(
        "--peers",
        type=names,
        metavar="PEER,...",
        help=f"whom to measure beside, '' for nobody, of {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--draw", action="store_true", help="measure nothing: draw the results that are there"
    )
    parser.add_argument("--repeats", type=int, help="how often each figure is measured (5)")
    parser.add_argument(
        "--seconds", type=float, help="how long one measurement lasts; some take multiples (0.4)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where to write what came out"
    )
    given = parser.parse_args(words)
    for option, known in (("only", SECTIONS), ("peers", PEERS)):
        for name in getattr(given, option) or ():
            if name not in known:
                parser.error(f"--{option}: there is no {name!r}, but {', '.join(known)}")
    for option in ("repeats", "seconds"):
        value = getattr(given, option)
        if value is not None and not 0 < value < math.inf:
            parser.error(f"--{option} is {value}: it is a positive number")
    if all(value in (None, False) for value in vars(given).values()):
        given.output = RESULTS
    return given


def main() -> None:
    given = arguments(sys.argv[1:])
    if given.draw:
        draw(RESULTS / LATEST, PICTURES)
        return
    repeats, seconds = (1, 0.15) if given.quick else (5, 0.35)
    effort = Effort(
        repeats=given.repeats or repeats,
        seconds=given.seconds or seconds,
        peers=frozenset(PEERS if given.peers is None else given.peers),
    )
    console = Console(width=100)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        console.print(f"The machine is busy (load {load:.1f} on {cores} cores): it will show.")
    report: dict[str, Answers] = {}
    for name in given.only or SECTIONS:
        answers = report[name] = Answers()
        for found in SECTIONS[name].answer(effort):
            show(found, console)
            if isinstance(found, Skipped):
                answers.skipped.append(found)
            else:
                answers.questions.append(found)
    sum_up(report, console)
    if given.output is None:
        return
    given.output.mkdir(parents=True, exist_ok=True)
    write(report, effort, load, given.output / LATEST)
    try:
        draw(given.output / LATEST, PICTURES if given.output == RESULTS else given.output)
    except ImportError as error:
        console.print(f"No picture is drawn: {error}")


if __name__ == "__main__":
    main()
