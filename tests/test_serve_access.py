"""Who gets in, and what is refused."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.bench import PipelineBench
from tests.support.served import Reply, Served, serving
from tests.support.threads import eventually

from run_task import Closed, ConfigError, Pipeline, RwLock, TimeSeries, TimeUnit, task
from run_task.aggregates import count
from run_task.serve import Service
from run_task.serve._tokens import Tokens

TOKEN = "0123456789abcdef-token"


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


@task
def alone(data: object, start: int, end: int) -> int:
    return end


@task(name="a/pause?x=<b>&\N{SNOWMAN}")
def odd(data: object, start: int, end: int) -> int:
    return end


def bench(name: str = "bench") -> PipelineBench:
    made = PipelineBench([end_of])
    made.stage("a", RwLock[object](object()))
    return made


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


@contextmanager
def beyond(token_file: Path, **options: Any) -> Generator[Served]:
    """A service that other machines may ask."""
    with serving(bench().pipeline, host="0.0.0.0", token_file=token_file, **options) as served:
        yield served


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# Tokens


def test_beyond_this_machine_a_token_is_needed_to_look(token_file: Path) -> None:
    with beyond(token_file) as served:
        for path in ("/api/pipelines", "/api/live", "/metrics", "/api/openapi.json", "/api/no"):
            reply = served.ask(path)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer"), path
            assert TOKEN not in str(reply)
        for wrong in (TOKEN[:-1], f"{TOKEN}x", "", "\N{SNOWMAN}".encode().decode("latin-1")):
            assert served.ask("/api/pipelines", **bearer(wrong)).status == 401
        assert served.ask("/api/pipelines", authorization=f"Basic {TOKEN}").status == 401
        assert served.ask("/api/pipelines", **bearer()).status == 200
        # Whether it is alive and ready is told to everybody, and no more than that.
        assert served.ask("/health").told == {"status": "alive", "reasons": []}
        assert served.ask("/ready").told == {"status": "ready", "reasons": []}
        assert served.ask("/").status == 200


def test_a_token_is_needed_to_change_something_also_from_this_machine(token_file: Path) -> None:
    made = bench()
    with serving(made.pipeline, token_file=token_file) as served:
        assert served.ask("/api/pipelines").status == 200
        assert served.ask("/api/stages/a/pause", "POST").status == 401
        assert not made.pipeline.stages[0].is_paused
        paused = served.ask("/api/stages/a/pause", "POST", **bearer())
        assert (paused.status, paused.told) == (
            200,
            {"stage": "a", "task": None, "paused": True},
        )
        assert made.pipeline.stages[0].is_paused
        eventually(lambda: served.get("/api/stages/a")["now"]["paused"])
        assert served.ask("/api/stages/a/resume", "POST", **bearer()).told["paused"] is False
        assert not made.pipeline.stages[0].is_paused
        assert served.ask("/api/stages/no/pause", "POST", **bearer()).status == 404
        assert served.ask("/api/stages/a/pause", **bearer()).status == 404  # a stage of that name


def test_so_it_is_of_a_task(token_file: Path) -> None:
    made = PipelineBench([end_of])
    stage = made.stage("a", RwLock[object](object()), tasks=[end_of, odd, alone])
    stage.into(TimeSeries({"alone": int}, TimeUnit.SECONDS, closed=Closed.RIGHT))
    path = f"/api/stages/a/pause?task={quote(odd.name, safe='')}"
    with serving(made.pipeline, token_file=token_file) as served:
        assert served.ask(path, "POST").status == 401
        assert stage.paused_tasks == set()
        paused = served.ask(path, "POST", **bearer())
        assert (paused.status, paused.told) == (
            200,
            {"stage": "a", "task": odd.name, "paused": True},
        )
        assert stage.paused_tasks == {odd.name}
        assert not stage.is_paused
        eventually(lambda: served.get("/api/stages/a")["now"]["paused_tasks"] == [odd.name])
        told = served.get("/api/stages/a")["stage"]["tasks"]
        assert [task["paused"] for task in told] == [False, True, False]
        assert [task["needed"] and "column" in task["needed"] for task in told] == [
            None,
            None,
            True,
        ]
        refused = served.ask("/api/stages/a/pause?task=alone", "POST", **bearer())
        assert refused.status == 409
        assert "pause(task='alone'): " in refused.told["error"]
        missing = served.ask("/api/stages/a/pause?task=no", "POST", **bearer())
        assert (missing.status, missing.told) == (404, {"error": "stage 'a' has no task 'no'"})
        again = path.replace("/pause", "/resume")
        assert served.ask(again, "POST", **bearer()).told["paused"] is False
        assert stage.paused_tasks == set()


def test_without_a_token_nothing_can_be_changed() -> None:
    made = bench()
    with serving(made.pipeline) as served:
        assert served.get("/api/session") == {
            "token_needed_to_read": False,
            "may_read": True,
            "may_change": False,
            "changes_possible": False,
        }
        for path in ("/api/stages/a/pause", "/api/session"):
            for headers in ({}, bearer(""), {"Authorization": "Bearer"}):
                assert served.ask(path, "POST", **headers).status == 403
        assert not made.pipeline.stages[0].is_paused


def test_a_session_stands_for_the_token_until_it_is_ended(token_file: Path) -> None:
    with beyond(token_file) as served:
        assert served.ask("/api/session", "POST", **bearer("wrong")).status == 401
        begun = served.ask("/api/session", "POST", **bearer())
        assert begun.status == 204
        cookie = begun.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        pair = cookie.partition(";")[0]
        assert served.ask("/api/session", cookie=pair).told["may_change"] is True
        assert served.ask("/api/stages/a/pause", "POST", cookie=pair).status == 200
        assert served.ask("/api/pipelines", cookie=f"{pair}x").status == 401
        assert served.ask("/api/session", "DELETE", cookie=pair).status == 204
        assert served.ask("/api/pipelines", cookie=pair).status == 401


def test_sessions_end_by_themselves_and_there_are_so_many_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("run_task.serve._tokens.time.monotonic", lambda: now)
    tokens = Tokens(TOKEN)
    first = tokens.begin()
    assert tokens.is_session(first)
    now += 12 * 3600 - 1
    assert tokens.is_session(first)
    second = tokens.begin()
    now += 2
    assert [tokens.is_session(first), tokens.is_session(second)] == [False, True]
    for _ in range(1000):
        tokens.begin()
    assert not tokens.is_session(second)


def test_the_token_is_in_no_log_and_no_repr(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), beyond(token_file) as served:
        served.ask("/api/pipelines", **bearer())
        served.ask(f"/api/pipelines?token={TOKEN}")
        with served.connect() as connection:
            connection.sendall(f"NO HTTP {TOKEN}\r\n\r\n".encode())
            connection.recv(1000)
        assert TOKEN not in repr(served.service)
    assert TOKEN not in caplog.text


def test_a_token_is_out_of_the_environment_or_a_file(
    token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_TASK_TOKEN", TOKEN)
    with serving(bench().pipeline, host="0.0.0.0") as served:
        assert served.ask("/api/pipelines", **bearer()).status == 200
    token_file.write_text("another-token-of-a-file")
    with serving(bench().pipeline, token_file=token_file) as served:
        assert served.ask("/api/stages/a/pause", "POST", **bearer()).status == 401


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("short", 0o600, "16 or more characters"),
        ("", 0o600, "16 or more characters"),
        ("with blanks in between it", 0o600, "without blanks"),
        ("m\N{LATIN SMALL LETTER U WITH DIAERESIS}ch-too-long-a-token", 0o600, "ASCII"),
        (TOKEN, 0o644, "every user of this machine: chmod 600"),
        (None, 0, "cannot be read"),
    ],
)
def test_a_token_that_is_none_is_refused(
    content: str | None, mode: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(ConfigError, match=message) as raised:
        Service([bench().pipeline], token_file=path)
    assert content is None or not content or content not in str(raised.value)


def test_others_are_let_in_with_a_token_alone() -> None:
    assert "RUN_TASK_TOKEN" not in os.environ
    with pytest.raises(ConfigError, match=r"host='0.0.0.0' lets other machines look: give a tok"):
        Service([bench().pipeline], host="0.0.0.0")
    with pytest.raises(ConfigError, match=r"under the name 'proxy' others may look: give a token"):
        Service([bench().pipeline], names=["proxy"])


# Names and other sites


def test_a_name_that_anybody_may_have_point_here_is_refused(token_file: Path) -> None:
    def asked(served: Served, host: str, **more: str) -> Reply:
        return served.ask("/api/pipelines", host=host, **more)

    with serving(bench().pipeline) as served:
        port = served.service.port
        for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            assert asked(served, host).status == 200
        for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "10.0.0.1"):
            refused = asked(served, host)
            assert refused.status == 421
            assert "not a name of this service" in refused.told["error"]
        assert served.ask("/", host="evil.example").status == 421
        assert served.ask("/health", host="evil.example").status == 200
    with beyond(token_file, names=["run.example"]) as served:
        for host in (socket.gethostname(), "run.example:443", "RUN.example.", "10.0.0.1:80"):
            assert asked(served, host, **bearer()).status == 200
        assert asked(served, "evil.example", **bearer()).status == 421


def test_what_another_site_has_a_browser_send_is_refused(token_file: Path) -> None:
    made = bench()
    with serving(made.pipeline, token_file=token_file) as served:
        cookie = served.ask("/api/session", "POST", **bearer()).headers["set-cookie"]
        brought = {"cookie": cookie.partition(";")[0]}
        here = f"127.0.0.1:{served.service.port}"
        for origin in (
            "http://evil.example",
            "null",
            f"http://{here}.evil.example",
            "http://127.0.0.1",
        ):
            refused = served.ask("/api/stages/a/pause", "POST", origin=origin, **brought)
            assert refused.status == 403, origin
        for site in ("cross-site", "same-site"):
            assert served.ask("/api/pipelines", sec_fetch_site=site).status == 403
            refused = served.ask("/api/stages/a/pause", "POST", sec_fetch_site=site, **brought)
            assert refused.status == 403
        assert not made.pipeline.stages[0].is_paused
        # A link on another site leads to the page, which is safe, and to nothing else.
        led = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
        assert served.ask("/", **led).status == 200
        assert served.ask("/api/pipelines", **led).status == 403
        own = served.ask("/api/stages/a/pause", "POST", origin=f"http://{here}", **brought)
        assert own.status == 200


def test_answers_tell_browsers_to_take_care() -> None:
    with serving(bench().pipeline) as served:
        for path in ("/api/pipelines", "/nothing", "/"):
            headers = served.ask(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "access-control-allow-origin" not in headers
        assert "server" not in served.ask("/").headers


# Limits, and files


def test_no_file_of_the_machine_is_reachable() -> None:
    with serving(bench().pipeline) as served:
        for path in (
            "/../../../../etc/passwd",
            "/..%2f..%2f..%2fetc%2fpasswd",
            "//etc/passwd",
            "/static/%2e%2e/%2e%2e/etc/passwd",
            "/api/stages/..%2f..%2fetc%2fpasswd",
            "/etc/passwd%00.js",
            "/api/results?stage=/etc/passwd",
        ):
            reply = served.ask(path)
            assert reply.status == 404, path
            assert b"root:" not in reply.body


def test_requests_that_are_too_large_or_none_are_refused() -> None:
    with serving(bench().pipeline) as served:
        assert served.ask("/api/pipelines", "POST", b"x" * 70_000).status == 413
        assert served.ask("/api/pipelines", content_length="-1").status in (400, 413)
        assert served.ask("/api/pipelines", content_length="9" * 5000).status in (400, 413)
        assert served.ask("/api/results?stage=a&since=1&since=2").status == 422
        for query in (
            "since=x",
            "since=-1",
            "since=1e99",
            "since=NaN",
            "format=xml",
            "no=1",
        ):
            refused = served.ask(f"/api/results?stage=a&{query}")
            assert refused.status == 422, query
            assert refused.told["error"]
        assert served.ask(f"/api/results?stage={'x' * 1001}").status == 422
        assert served.ask("/api/results").told["error"] == "say stage="
        assert served.ask("/api/pipeline?pipeline=no").status == 404
        assert served.ask("/api/pipelines", "DELETE", **bearer()).status == 403
        with served.connect() as connection:  # a header without an end
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
            assert connection.recv(1000).startswith((b"HTTP/1.1 4", b""))
        with served.connect() as connection:
            two = b"GET /api/pipelines HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n"
            connection.sendall(two)
            assert b" 400 " in connection.recv(1000).partition(b"\r\n")[0]
        assert served.ask("/health").status == 200


def test_a_body_that_is_no_http_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    chunked = b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving(bench().pipeline) as served:
        for path, rest in product(
            (b"/api/session", b"/api/stages/a/pause"),
            (b"nothing\r\n", b"1;" + b"x" * 200_000, b"0\r\nX: " + b"x" * 200_000),
        ):
            with served.connect() as connection, suppress(OSError):
                connection.sendall(b"POST " + path + b" HTTP/1.1\r\n" + chunked + rest)
                while connection.recv(1000):
                    pass
        assert served.ask("/health").status == 200
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
    assert "Traceback" not in caplog.text


# Several pipelines, and what cannot be


def test_several_pipelines_are_told_apart() -> None:
    one, other = bench(), bench()
    other.pipeline = Pipeline("other", clock=other.clock)
    other.stage("b", RwLock[object](object()))
    with serving(one.pipeline, other.pipeline) as served:
        names = [each["name"] for each in served.get("/api/pipelines")["pipelines"]]
        assert names == ["bench", "other"]
        refused = served.ask("/api/pipeline")
        assert (refused.status, refused.told) == (
            422,
            {"error": "say by pipeline= which one: 'bench', 'other'"},
        )
        assert served.get("/api/pipeline?pipeline=other")["stages"][0]["name"] == "b"
        assert served.ask("/api/stages/b?pipeline=bench").status == 404
        metrics = served.ask("/metrics").body.decode()
        assert 'run_task_ticks_total{pipeline="other",stage="b"} 0' in metrics


def test_what_cannot_be_served_is_refused() -> None:
    with pytest.raises(ConfigError, match="it needs a pipeline"):
        Service([])
    with pytest.raises(ConfigError, match="two pipelines are called 'bench'"):
        Service([bench().pipeline, bench().pipeline])
    with pytest.raises(ConfigError, match="max_lateness"):
        Service([bench().pipeline], max_lateness="soon")
    for name in ("https://heat.example.org/", "heat.example.org:443", "", "a b", "[::1]"):
        with pytest.raises(ConfigError, match="is no name of a machine: say what"):
            Service([bench().pipeline], token=TOKEN, names=["well.example.org", name])
    for name in ("heat.example.org", "heat", "xn--bcher-kva.example", "::1", "10.0.0.1"):
        Service([bench().pipeline], token=TOKEN, names=[name])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = Service([bench().pipeline], port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match=r"serve: it cannot listen .*: take another port="):
            service.run()


def test_gauges_that_no_result_would_ever_be_are_refused() -> None:
    made = bench()
    prices = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, key="symbol")
    made.pipeline.stage("by", [count()], prices, "1s", by="symbol")
    other = Pipeline("other", clock=made.clock)
    other.stage("with/slash", [end_of], RwLock[object](object()), "1s")
    both = [made.pipeline, other]
    for gauge, told in (
        ("end_of", "is no 'stage/task' that there is; those without keys are: 'a/end_of'"),
        ("a/no", "is no 'stage/task'"),
        ("no/end_of", "is no 'stage/task'"),
        ("a/end_ofs", "is no 'stage/task'"),
        ("by/count", "stage 'by' is by key, .* take a task of a stage without by="),
    ):
        with pytest.raises(ConfigError, match=f"serve: gauge='{gauge}'.*{told}"):
            Service(both, gauges=["a/end_of", gauge])
    Service(both, gauges=["a/end_of", "with/slash/end_of", "a/end_of_field"])
