"""Drawings: where boxes stand, and what is written in them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples

from run_task import (
    Atom,
    Pipeline,
    RunnerConfig,
    RwLock,
    Task,
    TimeSeries,
)
from run_task.observe._drawing import Box, BoxKind, draw
from run_task.observe._layout import Layers
from run_task.sinks import CallbackSink

SECOND = "1s"
SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """Graphs without cycles, whose nodes are numbered in any order."""
    count = draw(st.integers(1, 12))
    order = draw(st.permutations(range(count)))
    pairs = list(itertools.combinations(order, 2))
    return count, draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []


@given(graphs())
def test_every_edge_goes_to_the_right_one_layer_at_a_time(
    graph: tuple[int, list[tuple[int, int]]],
) -> None:
    count, edges = graph
    layers = Layers(count, edges)
    placed = [node for layer in layers.layers for node in layer]
    assert len(placed) == len(set(placed))
    assert set(range(count)) <= set(placed)
    layer_of = {node: i for i, layer in enumerate(layers.layers) for node in layer}
    for (start, end), path in zip(edges, layers.paths, strict=True):
        assert (path[0], path[-1]) == (start, end)
        assert all(node >= count for node in path[1:-1])
        steps = [layer_of[node] for node in path]
        assert steps == list(range(steps[0], steps[-1] + 1))
        assert len(steps) > 1


@given(graphs(), st.data())
def test_what_stands_in_a_layer_does_not_overlap(
    graph: tuple[int, list[tuple[int, int]]], data: st.DataObject
) -> None:
    count, edges = graph
    layers = Layers(count, edges)
    heights = data.draw(st.lists(st.floats(1, 200), min_size=count, max_size=count))
    middle = layers.places(heights, 10)
    height = dict.fromkeys(middle, 0.0) | dict(enumerate(heights))
    for layer in layers.layers:
        for upper, lower in itertools.pairwise(layer):
            distance = middle[lower] - middle[upper] - (height[upper] + height[lower]) / 2
            assert distance >= 10 - 1e-6
    assert min(middle[node] - height[node] / 2 for node in middle) == pytest.approx(0, abs=1e-6)


def test_crossings_that_need_not_be_are_not() -> None:
    # Two chains whose ends are given the other way round.
    layers = Layers(4, [(0, 3), (1, 2)])
    assert layers.crossings() == 0
    assert layers.layers in ([[0, 1], [3, 2]], [[1, 0], [2, 3]])
    # Three to three, all to all: nine pairs cross whatever is done.
    full = Layers(6, list(itertools.product(range(3), range(3, 6))))
    assert full.crossings() == 9


def test_a_source_stands_next_to_what_it_feeds() -> None:
    # 0 -> 1 -> 2 -> 3, and 4 -> 3.
    layers = Layers(5, [(0, 1), (1, 2), (2, 3), (4, 3)])
    assert layers.layers == [[0], [1], [2, 4], [3]]


def rectangles(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """The left, top, right and bottom of each box, by its title."""
    found: dict[str, tuple[float, float, float, float]] = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        assert rect is not None
        x, y, width, height = (float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
        texts = [text.text or "" for text in group.iter(f"{SVG}text")]
        found[texts[1]] = x, y, x + width, y + height
    return found


def points(path: str) -> Iterator[tuple[float, float]]:
    """Points along a line of a drawing."""
    x = y = 0.0
    for command, given_numbers in re.findall(r"([MHC])([^MHC]*)", path):
        numbers = [float(number) for number in given_numbers.split()]
        if command == "M":
            x, y = numbers
        elif command == "H":
            yield from ((x + (numbers[0] - x) * i / 20, y) for i in range(21))
            x = numbers[0]
        else:
            x1, y1, x2, y2, x3, y3 = numbers
            for i in range(21):
                t = i / 20
                s = 1 - t
                yield (
                    s**3 * x + 3 * s * s * t * x1 + 3 * s * t * t * x2 + t**3 * x3,
                    s**3 * y + 3 * s * s * t * y1 + 3 * s * t * t * y2 + t**3 * y3,
                )
            x, y = x3, y3


@settings(max_examples=examples(30))  # it looks at each line at many points
@given(graphs())
def test_no_line_goes_through_a_box(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    boxes = [Box(BoxKind.STAGE, f"{i}", ["line"] * (i % 4)) for i in range(count)]
    svg = draw("graph", boxes, edges)
    places = rectangles(svg)
    lines = [
        path.attrib["d"]
        for path in ElementTree.fromstring(svg).iter(f"{SVG}path")
        if path.attrib["fill"] == "none"
    ]
    assert len(lines) == len(edges)
    for line in lines:
        for x, y in points(line):
            for left, top, right, bottom in places.values():
                assert not (left + 0.2 < x < right - 0.2 and top + 0.2 < y < bottom - 0.2)


def html(thing: Any) -> str:
    markup: str = thing._repr_html_()
    return markup


def tasks(*names: str) -> list[Task[Any, float]]:
    def one(data: Any, start: int, end: int) -> float:
        return 1.0

    return [Task(one, name) for name in names]


def ingest(data: object, entered: object) -> None: ...


def example() -> Pipeline:
    pipeline = Pipeline("machine <1> & co")
    raw = TimeSeries({"price": float, "size": int})
    means, late = Atom(0.0), RwLock([0.0])

    def exchange() -> Iterator[tuple[int, dict[str, float]]]:
        yield 1, {"price": 1.0, "size": 1.0}

    pipeline.source(exchange(), into=raw)
    pipeline.source([(i, i) for i in range(100_000)], into=late, ingest=ingest)
    config = RunnerConfig(window="1m", grace="200ms")
    names = [f"task {i}" for i in range(9)]
    rolling = pipeline.stage("rolling <b>", tasks(*names), raw, SECOND, config)
    rolling.into(means, ingest).into(late, ingest).into(means, ingest)
    sink = CallbackSink(lambda stage, dataset: None)
    rolling.sink(sink)
    pipeline.stage("alerts", tasks("page"), late, SECOND).sink(sink)
    pipeline.stage("daily", tasks("trend"), means, SECOND)
    return pipeline


def test_a_pipeline_is_drawn_with_all_it_has() -> None:
    svg = example().draw()
    assert svg.startswith("<svg ")
    shown: Any = svg
    assert shown._repr_svg_() == svg
    root = ElementTree.fromstring(svg)
    title = root.find(f"{SVG}title")
    assert title is not None
    assert title.text == "pipeline machine <1> & co"
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts.count("source") == 2
    assert texts.count("stage") == 3
    assert texts.count("sink") == 1, "one that stages share"
    assert texts.count("data") == 3
    for text in (
        "exchange",
        "TimeSeries",
        "· size",
        "Atom",
        "RwLock",
        "CallbackSink(<lambda>)",
        "daily",
    ):
        assert text in texts
    at = texts.index("rolling <b>")
    told = ["every 1s", "over the last 1m", "grace 200ms", "· task 0"]
    assert texts[at + 1 : at + 5] == told
    assert "and 3 more" in texts
    lines = [path for path in root.iter(f"{SVG}path") if path.attrib["fill"] == "none"]
    assert len(lines) == 2 + 3 + 2 + 2, "sources, views, routes and sinks, each once"
    assert len(svg) < 10_000


def test_boxes_do_not_overlap_and_lie_within_the_picture() -> None:
    svg = example().draw()
    width, height = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg)[0])
    places = [
        tuple(float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
        for rect in ElementTree.fromstring(svg).iter(f"{SVG}rect")
    ]
    for x, y, w, h in places:
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
    for (x, y, w, h), (x2, y2, w2, h2) in itertools.combinations(places, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


@pytest.mark.parametrize(
    "name", ["</text><script>alert(1)</script>", "a\"b'c", "\x00\x1b[31m", "\ud800", "情緒\n分析"]
)
def test_names_are_only_text(name: str) -> None:
    pipeline = Pipeline(name)
    data = RwLock(0.0)
    pipeline.stage(name, tasks(name), data, SECOND)
    for drawn in (pipeline.draw(), html(pipeline)):
        svg = drawn[drawn.index("<svg") : drawn.index("</svg>") + 6]
        root = ElementTree.fromstring(svg.encode())
        assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
            "svg",
            "title",
            "g",
            "rect",
            "text",
            "path",
        }
        assert "<script" not in drawn


def test_a_drawing_is_the_same_each_time() -> None:
    assert example().draw() == example().draw()


def test_a_pipeline_without_anything_can_be_shown() -> None:
    pipeline = Pipeline("empty")
    ElementTree.fromstring(pipeline.draw())
    assert "&lt;Pipeline &#x27;empty&#x27; of 0 sources" in html(pipeline)
