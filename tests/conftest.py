"""What the tests share."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.support.databases import mariadb, postgres
from tests.support.limits import EndsInTime
from tests.support.proof import examples

from run_task.sync._watch import watch

ROOT = Path(__file__).parent.parent

# The first example of a test imports what it needs, and on a busy machine any may take long.
settings.register_profile("ours", deadline=None, max_examples=examples(100))
settings.load_profile("ours")


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C do what it does by default, here and in the processes that tests start.

    A shell has the background jobs of a script ignore it, and what is ignored stays so in children.
    """
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(EndsInTime())
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def matplotlib_has_a_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It keeps a cache at home, and tells at length that it cannot where that is not writable."""
    if not os.access(Path.home(), os.W_OK):
        os.environ.setdefault("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))


@pytest.fixture(scope="session")
def nab() -> Path:
    """The folder of the Numenta Anomaly Benchmark's series, which are no part of the project."""
    folder = ROOT.parent / "shared" / "data" / "nab"
    if not folder.is_dir():
        pytest.skip("the NAB series are not here: they are not part of the project")
    return folder


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL database for the tests."""
    with postgres() as url:
        yield url


@pytest.fixture(scope="session")
def latin1_url() -> Iterator[str]:
    """The URL of a PostgreSQL database in ISO 8859-1."""
    with postgres("LATIN1") as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """The URL of a MariaDB database for the tests."""
    with mariadb() as url:
        yield url


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads that are switched as often as can be, so that races show."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(scope="module", autouse=True)
def no_program_is_left() -> Iterator[None]:
    """A file of tests ends without programs of Python's that it has started.

    Servers of databases are shared by all files, and multiprocessing keeps a tracker for good.
    """
    psutil = pytest.importorskip("psutil")
    program = psutil.Process()
    before = program.children(recursive=True)
    yield
    left: list[str] = []
    for child in set(program.children(recursive=True)) - set(before):
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(child.cmdline())
            if child.status() != psutil.STATUS_ZOMBIE and "python" in line:
                left.append(line)
    assert [line for line in left if "multiprocessing.resource_tracker" not in line] == []


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every test ends without threads of the library's, unless it began with them.

    The watch may have been woken meanwhile for what a longer-lived fixture has at work.
    """
    before, watched = set(threading.enumerate()), watch().watched
    yield
    assert not set(watch().watched) - set(watched)
    watch().settle()  # a runner whose shutdown is broken off does not wait for its end
    threads = set(threading.enumerate()) - before
    names = [thread.name for thread in threads if thread.name.startswith("run-task")]
    left = [name for name in names if name != "run-task watch" or not watch().watched]
    assert not left
