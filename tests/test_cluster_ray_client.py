"""A driver that reaches a cluster of Ray from elsewhere, by ``ray://``."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.brokers import free_port
from tests.support.ray_nodes import nodes
from tests.test_cli_shards import KEYED, lines

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("grpc", reason="grpcio is not installed, which Ray's client needs")
pytest.importorskip("cloudpickle")

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.timeout(240)
def test_a_run_over_shards_that_a_client_reaches_says_what_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For the process that Ray starts for each client, which a busy machine takes its time for.
    for wait in ("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", "TIMEOUT_FOR_SPECIFIC_SERVER_S"):
        monkeypatch.setenv(wait, "90")
    # Ray forks for that process while threads of gRPC are at work, whose handlers may then hold it
    # up before it has begun: its log was empty after half a minute.
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
    monkeypatch.setattr("tests.support.commands.PATIENCE", 25.0)
    (tmp_path / "app.py").write_text(KEYED)
    alone = lines(tmp_path)
    port = free_port()
    with nodes(0, 1, 1, client_port=port):
        assert lines(tmp_path, "--shards", "2", "--ray", f"ray://127.0.0.1:{port}") == alone
