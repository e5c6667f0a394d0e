"""What the tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def nab() -> Path:
    """The folder of the Numenta Anomaly Benchmark's series, which are no part of the project."""
    folder = ROOT.parent / "shared" / "data" / "nab"
    if not folder.is_dir():
        pytest.skip("the NAB series are not here: they are not part of the project")
    return folder
