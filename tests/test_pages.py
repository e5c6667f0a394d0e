"""What the documentation's pages are run by, where no page shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Document
from tests.conftest import ROOT
from tests.support.pages import Blocks, enter, leave

PAGE = """
```python title="program.py, with {library}"
print(6 * 7)
```

```text
{printed}
```
"""


def run(page: Path, made: str = "") -> str:
    """Run a page. Returns what is in a file that it makes."""
    document = Document.parse(str(page), Blocks())
    enter(document.namespace)
    try:
        for example in document.examples():
            example.evaluate()
        return Path(made).read_text() if made else ""
    finally:
        leave(document.namespace)


def test_a_program_is_run_where_its_library_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(library="numpy", printed="42"))
    run(page)
    page.write_text(PAGE.format(library="numpy", printed="41"))
    with pytest.raises(Exception, match="did not evaluate as expected"):
        run(page)


def test_a_program_is_skipped_with_a_word_where_its_library_is_not(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(library="no_such_library", printed="42"))
    with pytest.raises(pytest.skip.Exception, match="no_such_library is installed neither"):
        run(page)


def test_a_word_that_nobody_knows_is_no_way_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python notest\n1 / 0\n```\n")
    with pytest.raises(AssertionError, match="says something besides"):
        run(page)


def test_the_picture_of_a_pipeline_is_what_the_page_beside_it_draws() -> None:
    drawn = run(ROOT / "docs/how-to/notebooks.md", made="house.svg")
    assert (ROOT / "docs/images/house.svg").read_text() == drawn


def test_what_contributors_are_shown_works() -> None:
    run(ROOT / "CONTRIBUTING.md")
