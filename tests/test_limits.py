"""A run of the tests that does not end by itself is broken off, and says where it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.support.threads import PATIENCE

CONFTEST = """
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.support.limits import EndsInTime


class Soon(EndsInTime):
    def pytest_runtest_logstart(self, nodeid):
        super().pytest_runtest_logstart(nodeid)
        threading.Thread(target=self.wait).start()

    def wait(self):
        while not os.path.exists("child"):
            time.sleep(0.01)
        time.sleep(0.2)  # the worker dies meanwhile
        self._break_off()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self):  # the pipe is waited for again, if not for long
        os.kill(int(Path("child").read_text()), signal.SIGKILL)


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Soon())
"""
TESTS = """
import os
import signal
import time


def test_it():
    if not (child := os.fork()):
        time.sleep(60)
        os._exit(0)
    with open("new", "w") as file:
        file.write(str(child))
    os.rename("new", "child")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_where_a_worker_dies_and_a_fork_of_it_keeps_its_pipe_open_the_run_ends_and_names_the_test(
    tmp_path: Path,
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_fork.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "xdist.plugin",
        "-n",
        "1",
        "--dist",
        "loadfile",
    ]
    plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    environment = {key: value for key, value in os.environ.items() if "PYTEST" not in key}
    with (tmp_path / "told").open("w+") as told:  # a pipe would be held open by the fork, too
        program = subprocess.Popen(
            [*command, str(tmp_path)],
            env=environment | plain,
            cwd=tmp_path,
            stdout=told,
            stderr=subprocess.STDOUT,
        )
        try:
            status = program.wait(60)
        finally:
            program.kill()
            program.wait(PATIENCE)
        told.seek(0)
        text = told.read()
    assert status == pytest.ExitCode.INTERRUPTED, text
    assert "not at its end after" in text
    assert "begun, and not ended: test_fork.py::test_it" in text
