"""The timelines of the documentation."""

from __future__ import annotations

import pytest
from docs.drawings import DRAWINGS, IMAGES


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_as_it_is_drawn_now(name: str) -> None:
    drawn = str(DRAWINGS[name]())
    assert (IMAGES / f"{name}.svg").read_text() == drawn, "run: python docs/drawings.py"
