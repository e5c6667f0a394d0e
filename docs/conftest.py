"""Every code block of these pages is a test: ``tests/support/pages.py`` says how."""

from sybil import Sybil
from tests.support.pages import Blocks, enter, leave

pytest_collect_file = Sybil([Blocks()], pattern="*.md", setup=enter, teardown=leave).pytest()
