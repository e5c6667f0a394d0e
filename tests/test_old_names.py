"""Old names are still there, with a warning that says the new one."""

from __future__ import annotations

import importlib

import pytest

from run_task import data


def test_run_task_shared_is_run_task_data() -> None:
    shared = importlib.import_module("run_task.shared")
    with pytest.warns(DeprecationWarning, match="import Viewable$") as caught:
        assert shared.Viewable is data.Viewable
    assert caught[0].filename == __file__


def test_it_has_nothing_else() -> None:
    shared = importlib.import_module("run_task.shared")
    with pytest.raises(AttributeError, match=r"'run_task\.shared' has no attribute 'Vieable'"):
        _ = shared.Vieable
