"""Boxes and arrows as SVG, which reads on light and on dark ground.

Boxes are filled and have dark text, and arrows are of a grey that stands out from white and from
black alike. There are no ids and no styles, so any number of drawings fit into one page.
"""

from __future__ import annotations

import enum
import html
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from run_task.observe._layout import Layers

_LINE: Final = 16.0
_PAD: Final = 10.0
_GAP: Final = 18.0
_BETWEEN: Final = 48.0
_MARGIN: Final = 8.0
_WIDEST: Final = 34
"""How many characters of a line are shown."""

_TEXT: Final = "#1b1f24"
_MUTED: Final = "#4b5563"
_GREY: Final = "#7f8792"


class BoxKind(enum.Enum):
    """What a box stands for. Its value is written in it."""

    SOURCE = "source"
    DATA = "data"
    STAGE = "stage"
    SINK = "sink"


_FILL: Final = {
    BoxKind.SOURCE: "#cdebd3",
    BoxKind.DATA: "#e5e7eb",
    BoxKind.STAGE: "#cfe2fb",
    BoxKind.SINK: "#fbe6bf",
}
_ROUND: Final = {BoxKind.SOURCE: 14, BoxKind.DATA: 0, BoxKind.STAGE: 5, BoxKind.SINK: 14}


@dataclass(frozen=True)
class Box:
    """A box.

    :param kind: what it stands for
    :param title: its name
    :param lines: what there is to say below
    """

    kind: BoxKind
    title: str
    lines: Sequence[str] = ()

    @property
    def height(self) -> float:
        """In pixels."""
        return (2 + len(self.lines)) * _LINE + _PAD

    @property
    def width(self) -> float:
        """In pixels, by a guess that is rather too large: the font is the reader's."""
        widths = [_width(self.title) * 8.8, *(_width(line) * 6.9 for line in self.lines)]
        return max(60.0, *widths) + 2 * _PAD


class Drawing(str):
    """An SVG, as text. A notebook shows the picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def draw(
    title: str,
    boxes: Sequence[Box],
    arrows: Sequence[tuple[int, int]],
    both_ways: Collection[tuple[int, int]] = (),
) -> Drawing:
    """Draw boxes, and arrows between them, from left to right.

    :param title: what is drawn, for those who cannot see it
    :param boxes: the boxes
    :param arrows: from which box to which, by position; there is no way round in a circle
    :param both_ways: those of the arrows that point back, too
    """
    layers = Layers(len(boxes), arrows)
    middle = layers.places([box.height for box in boxes], _GAP)
    columns: dict[int, tuple[float, float]] = {}  # where that of each box begins and ends
    x = _MARGIN
    for layer in layers.layers:
        width = max((boxes[node].width for node in layer if node < len(boxes)), default=0.0)
        columns.update(dict.fromkeys(layer, (x, x + width)))
        x += width + _BETWEEN
    left = [(sum(columns[i]) - box.width) / 2 for i, box in enumerate(boxes)]
    y = {node: at + _MARGIN for node, at in middle.items()}
    width = max(x - _BETWEEN, 0.0) + _MARGIN
    height = max((y[i] + box.height / 2 for i, box in enumerate(boxes)), default=0.0) + _MARGIN
    drawn = [
        _arrow(
            left[path[0]] + boxes[path[0]].width,
            [(*columns[node], y[node]) for node in path],
            left[path[-1]],
            back=(path[0], path[-1]) in both_ways,
        )
        for path in layers.paths
    ]
    drawn += [_box(box, left[i], y[i] - box.height / 2) for i, box in enumerate(boxes)]
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:.0f} {height:.0f}"'
        f' width="{width:.0f}" style="max-width:100%;height:auto"'
        f' font-family="system-ui,-apple-system,Segoe UI,DejaVu Sans,sans-serif">'
        f"<title>{_escaped(title)}</title>{''.join(drawn)}</svg>"
    )


def _arrow(
    start: float, through: Sequence[tuple[float, float, float]], tip: float, *, back: bool
) -> str:
    """A line that bends between columns only, so that it meets no box on its way.

    :param start: where it begins, from the left
    :param through: the columns that it goes through, from where to where, and how far down
    :param tip: where it ends, from the left
    :param back: whether it points back, too
    """
    path = f"M{start + (6 if back else 0):.1f} {through[0][2]:.1f}"
    for (_, right, above), (left, _, below) in pairwise(through):
        bend = (right + left) / 2
        path += f"H{right:.1f}C{bend:.1f} {above:.1f} {bend:.1f} {below:.1f} {left:.1f} {below:.1f}"
    path += f"H{tip - 6:.1f}"
    first = f'<path d="M{start:.1f} {through[0][2]:.1f}l9 -4.5v9z" fill="{_GREY}"/>' if back else ""
    return first + (
        f'<path d="{path}" fill="none" stroke="{_GREY}" stroke-width="1.5"/>'
        f'<path d="M{tip:.1f} {through[-1][2]:.1f}l-9 -4.5v9z" fill="{_GREY}"/>'
    )


def _box(box: Box, x: float, y: float) -> str:
    lines = [
        (box.kind.value, f'font-size="10" fill="{_MUTED}"'),
        (box.title, f'font-size="13" font-weight="bold" fill="{_TEXT}"'),
        *((line, f'font-size="12" fill="{_TEXT}"') for line in box.lines),
    ]
    texts = "".join(
        f'<text x="{x + _PAD:.1f}" y="{y + _PAD / 2 + (i + 0.75) * _LINE:.1f}" {style}>'
        f"{_escaped(_short(text))}</text>"
        for i, (text, style) in enumerate(lines)
    )
    return (
        f'<g><rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="{_ROUND[box.kind]}" fill="{_FILL[box.kind]}" stroke="{_GREY}"/>{texts}</g>'
    )


def _short(text: str) -> str:
    """On one line; its middle left out if it is long, since names often differ at the end."""
    text = " ".join(text.split())
    if len(text) <= _WIDEST:
        return text
    return f"{text[: _WIDEST // 2 - 1]}…{text[-_WIDEST // 2 :]}"


def _width(text: str) -> float:
    """How many letters wide."""
    return sum(1.7 if unicodedata.east_asian_width(c) in "WF" else 1.0 for c in _short(text))


def _escaped(text: str) -> str:
    """As text of XML, which knows no control characters and no half of a pair."""
    return html.escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
