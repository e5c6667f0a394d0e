"""What has failed is run once more."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.again import failed


def test_a_test_is_run_by_itself_and_an_example_with_all_of_its_page(tmp_path: Path) -> None:
    assert failed(tmp_path) == []
    cache = tmp_path / ".pytest_cache/v/cache"
    cache.mkdir(parents=True)
    names = [
        "tests/test_a.py::test_one[a b'c]",
        "docs/how-to/x.md::line:44,column:1",
        "docs/how-to/x.md::line:60,column:1",
    ]
    (cache / "lastfailed").write_text(json.dumps(dict.fromkeys(names, True)))
    assert failed(tmp_path) == [names[0], "docs/how-to/x.md"]
