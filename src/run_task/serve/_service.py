"""A service: pipelines that run, and a server that tells of them."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from run_task.errors import ConfigError, SourceError, described
from run_task.observe._log import Log
from run_task.pipeline import Pipeline
from run_task.runner._signals import shut_down_on_sigterm
from run_task.serve._app import Api
from run_task.serve._guard import Guard, own_names
from run_task.serve._health import Bounds
from run_task.serve._supervisor import Supervisor
from run_task.serve._terms import check_pipelines, check_terms
from run_task.serve._tokens import Tokens, checked_token, read_token
from run_task.serve._watched import WatchedPipeline
from run_task.sources.http._server import HttpServer, is_loopback
from run_task.sync._alarm import Alarm
from run_task.time._length import IntervalLike

_log = Log(__name__)

_MOST_CONNECTIONS: Final = 1024

_LOOKED_EVERY: Final = 5.0
"""How many seconds lie between two looks at what runs, where nobody waits for a sign of life."""

_BEGUN_EVERY: Final = 0.02
"""The same while it begins."""

_LAST_WORDS: Final = 0.5
"""How many seconds streams have to tell that the pipelines have ended."""


class Service:
    """Runs pipelines, and serves the page, the API, health and metrics meanwhile::

        Service([pipeline], port=8080).run()

    Only this machine is listened to unless another ``host`` is said, which needs a token. With a
    token, stages may be paused and resumed.

    :param pipelines: the pipelines
    :param host: where to listen: a name or an address of this machine; ``"0.0.0.0"`` is all of IPv4
    :param port: the port; 0: any that is free, which :attr:`port` tells
    :param token_file: a file with the token; None: the environment variable ``RUN_TASK_TOKEN`` has
        it, or there is none
    :param token: the token itself, in place of a file
    :param names: names under which it may be asked, besides addresses and those of this machine:
        that of a proxy, say. With any, looking needs the token, too
    :param max_lateness: a pipeline with a window that begins later than that is not ready
    :param gauges: results of stages without keys that are metrics, each as ``"stage/task"``; of
        results with fields, as ``"stage/task_field"``. The stage is there when it begins
    :param run: runs one of them until it is shut down, or at its end, in a thread of its own: over
        shards, say, by ``lambda pipeline: pipeline.run_sharded(8)``
    :raises ConfigError: if one of these cannot be, or other machines could look without a token
    """

    def __init__(
        self,
        pipelines: Iterable[Pipeline],
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        token_file: str | os.PathLike[str] | None = None,
        token: str | None = None,
        names: Iterable[str] = (),
        max_lateness: IntervalLike = "10s",
        gauges: Iterable[str] = (),
        run: Callable[[Pipeline], object] = Pipeline.run_sync,
    ) -> None:
        where = "serve"
        names = tuple(names)
        lateness = check_terms(host, port, names, max_lateness)
        served: Sequence[Pipeline] = tuple(pipelines)
        if not served:
            raise ConfigError(f"{where}: it needs a pipeline")
        shown_gauges = tuple(gauges)
        check_pipelines(served, shown_gauges)
        if token is not None and token_file is not None:
            raise ConfigError(f"{where}: token= and token_file=: say one of them")
        token = read_token(token_file) if token is None else checked_token(token, "token=")
        if token is None and not is_loopback(host):
            raise ConfigError(
                f"{where}: host={host!r} lets other machines look: give a token, by --token-file "
                f"or RUN_TASK_TOKEN, or listen on '127.0.0.1'"
            )
        if token is None and names:
            raise ConfigError(
                f"{where}: under the name {names[0]!r} others may look: give a token, by "
                f"--token-file or RUN_TASK_TOKEN"
            )
        self._tokens = Tokens(token)
        self._host = host
        self._port = port
        self._watched = [WatchedPipeline(pipeline, Bounds(lateness)) for pipeline in served]
        self._run_pipeline = run
        self._api = Api(self._watched, self._tokens, shown_gauges)
        self._names = names
        self._server: HttpServer | None = None
        self._server_failure: BaseException | None = None
        self._is_stopping = False
        self._alarm = Alarm()

    @property
    def port(self) -> int:
        """The port that it listens on; before it does, that which was given."""
        return self._port if self._server is None else self._server.port

    @property
    def url(self) -> str:
        """Where this machine finds the page."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    @property
    def streams(self) -> int:
        """How many streams clients have asked for, and are told now."""
        return self._api.streams

    def shutdown(self) -> None:
        """Shut the pipelines down, and stop to serve once they have ended. It returns at once. From
        any thread, any number of times, and in a signal handler."""
        for watched in self._watched:
            watched.is_ending = True
            watched.pipeline.shutdown()
        self._alarm.ring()

    def run(self, on_begin: Callable[[], object] = lambda: None) -> None:
        """Listen, and run the pipelines until all have ended; one that fails ends the others, too.

        :param on_begin: called once it listens and the pipelines are about to begin
        :raises ConfigError: if it cannot listen there, or a pipeline cannot run
        :raises ExceptionGroup: what pipelines have failed by
        """
        supervisor = Supervisor.of(os.environ)
        server = self._listen()
        self._server = server
        threads = [
            threading.Thread(target=self._run, args=(watched,), name=f"serve {watched.name}")
            for watched in self._watched
        ]
        with shut_down_on_sigterm(self.shutdown):
            server.start()
            try:
                on_begin()
                for thread in threads:
                    thread.start()
                self._look_after(threads, supervisor)
            finally:
                self.shutdown()
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()
                self._stop(server)
        failures = [error for watched in self._watched if (error := watched.failure) is not None]
        if self._server_failure is not None:
            failures.append(self._server_failure)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise BaseExceptionGroup("pipelines have failed", failures)

    def _look_after(self, threads: Sequence[threading.Thread], supervisor: Supervisor) -> None:
        """Tell who has started the process how it is, until all pipelines have ended."""
        is_ready = is_stopping = False
        pause = _LOOKED_EVERY if supervisor.watchdog is None else supervisor.watchdog / 3
        alive_at = -math.inf
        while any(thread.is_alive() for thread in threads):
            if not is_ready and all(watched.pipeline.is_running for watched in self._watched):
                is_ready = True
                supervisor.ready(f"serving at {self.url}")
            if not is_stopping and any(watched.is_ending for watched in self._watched):
                is_stopping = True
                supervisor.stopping()
            now = time.monotonic()
            if supervisor.watchdog is not None and now - alive_at >= pause:
                alive_at = now
                # The event loop looks at pipelines, too: if one of them hangs, it does not answer.
                if self._api.answers(pause):
                    supervisor.alive()
            self._alarm.wait(pause if is_ready else min(pause, _BEGUN_EVERY))

    def _run(self, watched: WatchedPipeline) -> None:
        """Run a pipeline, in a thread of its own."""
        try:
            self._run_pipeline(watched.pipeline)
        except BaseException as error:
            watched.end(error)
            _log.error("pipeline %r has failed: %s", watched.name, described(error))
            self.shutdown()
        else:
            watched.end(None)
        self._alarm.ring()

    def _listen(self) -> HttpServer:
        """The server, which listens, and does not answer yet.

        :raises ConfigError: if it cannot listen there
        """
        needs_token = not is_loopback(self._host) or bool(self._names)
        guard = Guard(
            self._api.application(),
            self._tokens,
            needs_token=needs_token,
            names=(*self._names, *own_names()),
            port=self._port,
        )
        self._api.guard = guard
        try:
            return HttpServer(
                *("serve", guard, self._host, self._port, self._server_ended),
                extra="serve",
                websockets=True,
                lifespan=True,
                most_connections=_MOST_CONNECTIONS,
            )
        except SourceError as error:
            raise ConfigError(f"serve: {error.reason}") from None

    def _server_ended(self, failure: BaseException | None) -> None:
        if self._is_stopping:
            return
        self._server_failure = failure or SystemExit("the server has ended")
        _log.error("the server has ended: %s", described(self._server_failure))
        self.shutdown()

    def _stop(self, server: HttpServer) -> None:
        """Let streams tell the last state, and serve no more."""
        self._api.close()
        until = time.monotonic() + _LAST_WORDS
        while self._api.streams and time.monotonic() < until:
            time.sleep(0.01)
        self._is_stopping = True
        server.stop()
        server.join()
