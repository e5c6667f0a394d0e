"""The application: what is answered to which request."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import fields
from http import HTTPStatus
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from run_task._version import __version__
from run_task.errors import RunTaskError
from run_task.pipeline._stage import AnyStage
from run_task.serve._catalog import ARROW, OPERATIONS
from run_task.serve._events import BEAT, NOTHING_NEW, Event, Slots, send_events, send_messages
from run_task.serve._guard import (
    ACCESS,
    Guard,
    Permissions,
    Receive,
    RefusedRequest,
    Scope,
    Send,
    refuse,
)
from run_task.serve._health import RunState
from run_task.serve._hub import Hub, StreamClient
from run_task.serve._live import LiveFeed
from run_task.serve._metrics import CONTENT_TYPE, exposition
from run_task.serve._operations import Operation, openapi
from run_task.serve._page import page
from run_task.serve._results import (
    KeyChoice,
    as_arrow,
    fates,
    key_page,
    keyed_numbers,
    numbers,
    numbers_told,
)
from run_task.serve._shapes import (
    ErrorTold,
    FailuresInFull,
    KeyedNumbers,
    NumbersTold,
    PausedTold,
    PipelineName,
    PipelineNames,
    SessionTold,
    StageInFull,
    StatusTold,
)
from run_task.serve._tokens import Tokens
from run_task.serve._topology import stage_node
from run_task.serve._watched import WatchedPipeline
from run_task.tasks._keyed import KeyedDataSet

T = TypeVar("T")

OpenEvents: TypeAlias = contextlib.AbstractContextManager[AsyncGenerator[Event]]

Handler: TypeAlias = Callable[[Request, Mapping[str, Any]], Awaitable[Response]]

_MOST_STREAMS: Final = 256

_SAMPLED_EVERY: Final = 6.0
"""How many seconds lie between two looks at pipelines that nobody watches."""

_MOST_AT_WORK: Final = 2
"""How many requests are worked on at a time that take long."""

_MOST_QUEUED: Final = 64
"""How many more may wait for that."""


class NameConvertor(Convertor[str]):
    """Takes any name out of a path, also one with slashes or line breaks in it."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("run_task_name", NameConvertor())


class EventsResponse(Response):
    """Answers with a stream.

    :param slots: how many there may be
    :param events: what is streamed, while a block lasts
    :param closing: set when the service ends
    """

    def __init__(self, slots: Slots, events: OpenEvents, closing: asyncio.Event) -> None:
        super().__init__()
        self._slots = slots
        self._events = events
        self._closing = closing

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Stream, until it ends."""
        self._slots.take()
        try:
            with self._events as events:
                await send_events(receive, send, events, self._closing)
        finally:
            self._slots.give_back()


class Api:
    """What is answered about some pipelines.

    :param pipelines: the pipelines
    :param tokens: who may do what
    :param gauges: the results that metrics tell, each as ``stage/task``
    """

    def __init__(
        self, pipelines: Sequence[WatchedPipeline], tokens: Tokens, gauges: Iterable[str] = ()
    ) -> None:
        self._pipelines = {watched.name: watched for watched in pipelines}
        self._feeds = {watched.name: LiveFeed(watched) for watched in pipelines}
        self._tokens = tokens
        self._gauges = frozenset(gauges)
        self._slots = Slots(_MOST_STREAMS)
        self._hub = Hub()
        for watched in pipelines:
            watched.monitor.pass_on(self._hub.taker(watched.name))
        self._at_work = asyncio.Semaphore(_MOST_AT_WORK)
        self._queued = 0
        self.closing = asyncio.Event()
        """Set in the event loop when streams are to end."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.guard: Guard | None = None

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return self._slots.taken

    def answers(self, timeout: float) -> bool:
        """Whether the event loop does anything at all.

        :param timeout: for how many seconds it is waited for
        """
        answered = threading.Event()
        if self._loop is None:
            return False
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(answered.set)
        return answered.wait(timeout)

    def close(self) -> None:
        """Let streams end. From any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed, and there are none
                self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        self.closing.set()
        self._hub.wake()

    @contextlib.asynccontextmanager
    async def _lifespan(self, application: Starlette) -> AsyncGenerator[None]:
        self._loop = asyncio.get_running_loop()
        self._hub.begin(self._loop)
        task = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _sample(self) -> None:
        """Look at pipelines that nobody watches, too: what is told over time has no gaps."""
        while True:
            for watched in self._pipelines.values():
                watched.look()
            await asyncio.sleep(_SAMPLED_EVERY)

    def application(self) -> Starlette:
        """The application, for ASGI."""
        described = msgspec.json.encode(openapi(OPERATIONS, ErrorTold, __version__))
        handlers = self._handlers

        async def describe(request: Request) -> Response:
            return _json_bytes(described)

        routes: list[BaseRoute] = [Route("/api/openapi.json", describe, methods=["GET"])]
        by_path: dict[str, list[Operation]] = {}
        for each in OPERATIONS:
            by_path.setdefault(each.path.replace("{name}", "{name:run_task_name}"), []).append(each)
        for path, of_path in by_path.items():
            methods = {each.method: each for each in of_path}
            routes.append(Route(path, _endpoint(methods, handlers), methods=list(methods)))
        routes.append(WebSocketRoute("/api/stream", self._web_socket))
        application = Starlette(
            routes=[*routes, *page()],
            lifespan=self._lifespan,
            exception_handlers={RefusedRequest: _refused, HTTPException: _http_refused},
        )
        application.router.redirect_slashes = False
        return application

    @property
    def _handlers(self) -> Mapping[str, Handler]:
        return {
            "health": self._health,
            "ready": self._ready,
            "metrics": self._metrics,
            "session": self._session,
            "begin_session": self._begin_session,
            "end_session": self._end_session,
            "pipelines": self._names,
            "pipeline": self._topology,
            "live": self._live,
            "stage": self._stage,
            "pause": self._pause,
            "resume": self._resume,
            "results": self._results,
            "keys": self._keys,
            "fates": self._fates,
            "errors": self._errors,
            "stream": self._stream,
        }

    # What the service says of itself

    async def _health(self, request: Request, said: Mapping[str, Any]) -> Response:
        return _json(StatusTold(status="alive", reasons=[]))

    async def _ready(self, request: Request, said: Mapping[str, Any]) -> Response:
        reasons: list[str] = []
        for watched in self._pipelines.values():
            watched.look()
            found = watched.unready()
            reasons += [f"pipeline {watched.name!r}: {reason}" for reason in found]
        told = StatusTold(
            status="not ready" if reasons else "ready",
            reasons=reasons if _access(request).read else [],
        )
        return _json(told, HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK)

    async def _metrics(self, request: Request, said: Mapping[str, Any]) -> Response:
        for watched in self._pipelines.values():
            watched.look()
        body = exposition(list(self._pipelines.values()), self._gauges)
        return Response(body, headers={"content-type": CONTENT_TYPE})

    async def _session(self, request: Request, said: Mapping[str, Any]) -> Response:
        access = _access(request)
        assert self.guard is not None
        told = SessionTold(
            token_needed_to_read=self.guard.needs_token,
            may_read=access.read,
            may_change=access.change,
            changes_possible=self._tokens.is_set,
        )
        return _json(told)

    async def _begin_session(self, request: Request, said: Mapping[str, Any]) -> Response:
        if not self._tokens.is_set:
            reason = "the service was started without a token"
            raise RefusedRequest(HTTPStatus.FORBIDDEN, reason)
        if not _access(request).change:
            reason = "bring the token: Authorization: Bearer TOKEN"
            raise RefusedRequest(HTTPStatus.UNAUTHORIZED, reason)
        assert self.guard is not None
        response = Response(status_code=HTTPStatus.NO_CONTENT)
        response.set_cookie(
            self.guard.cookie, self._tokens.begin(), httponly=True, samesite="strict", path="/"
        )
        return response

    async def _end_session(self, request: Request, said: Mapping[str, Any]) -> Response:
        assert self.guard is not None
        if (session := _access(request).session) is not None:
            self._tokens.end(session)
        response = Response(status_code=HTTPStatus.NO_CONTENT)
        response.delete_cookie(self.guard.cookie, path="/", httponly=True, samesite="strict")
        return response

    # Pipelines

    async def _names(self, request: Request, said: Mapping[str, Any]) -> Response:
        found = [
            PipelineName(name=watched.name, state=watched.state.value)
            for watched in self._pipelines.values()
        ]
        return _json(PipelineNames(pipelines=found))

    async def _topology(self, request: Request, said: Mapping[str, Any]) -> Response:
        return _json(self._pipeline(said).topology_told())

    async def _live(self, request: Request, said: Mapping[str, Any]) -> Response:
        feed = self._feeds[self._pipeline(said).name]
        events = contextlib.nullcontext(feed.events(self.closing))
        return EventsResponse(self._slots, events, self.closing)

    async def _stage(self, request: Request, said: Mapping[str, Any]) -> Response:
        watched = self._pipeline(said)
        stage = _stage_of(watched, request.path_params["name"])
        watched.look()
        if stage.name not in watched.stages:  # it was added just now
            watched.look(at_once=True)
        now = watched.stages[stage.name].told
        told = StageInFull(
            stage=stage_node(stage),
            now=now,
            errors=watched.failures_in_full(stage.name),
            series=list(now.numbers),
        )
        return _json(told)

    async def _pause(self, request: Request, said: Mapping[str, Any]) -> Response:
        return await self._pause_or_resume(request, said, paused=True)

    async def _resume(self, request: Request, said: Mapping[str, Any]) -> Response:
        return await self._pause_or_resume(request, said, paused=False)

    async def _pause_or_resume(
        self, request: Request, said: Mapping[str, Any], *, paused: bool
    ) -> Response:
        watched = self._pipeline(said)
        stage = _stage_of(watched, request.path_params["name"])
        if watched.state is not RunState.RUNNING:
            reason = f"pipeline {watched.name!r} is {watched.state.value}"
            raise RefusedRequest(HTTPStatus.CONFLICT, reason)
        task = said["task"]
        if task is not None and all(each.name != task for each in stage.tasks):
            reason = f"stage {stage.name!r} has no task {task!r:.80}"
            raise RefusedRequest(HTTPStatus.NOT_FOUND, reason)
        try:
            await asyncio.to_thread(watched.pause, stage, task, paused=paused)
        except RunTaskError as error:
            raise RefusedRequest(HTTPStatus.CONFLICT, str(error)) from None
        return _json(PausedTold(stage=stage.name, task=task, paused=paused))

    async def _results(self, request: Request, said: Mapping[str, Any]) -> Response:
        watched = self._pipeline(said)
        stage = _stage_of(watched, said["stage"])
        key, since = said["key"], said["since"] or 0.0
        as_table = said["format"] == "arrow" or ARROW in request.headers.get("accept", "")
        if key is not None and stage.keys is None:
            reason = f"stage {stage.name!r} is not by key: leave out key="
            raise RefusedRequest(HTTPStatus.NOT_FOUND, reason)

        def make() -> bytes:
            told: NumbersTold | KeyedNumbers
            if stage.keys is not None and key is None:
                told = keyed_numbers(stage.name, stage.keys.by, _keyed(watched, stage))
            else:
                told = numbers_told(stage.name, *numbers(watched, stage.name, key, since))
            return as_arrow(told) if as_table else msgspec.json.encode(told)

        body = await self._at_leisure(make)
        return Response(body, media_type=ARROW) if as_table else _json_bytes(body)

    async def _keys(self, request: Request, said: Mapping[str, Any]) -> Response:
        watched = self._pipeline(said)
        stage = _stage_of(watched, said["stage"])
        if stage.keys is None:
            reason = f"stage {stage.name!r} is not by key"
            raise RefusedRequest(HTTPStatus.NOT_FOUND, reason)
        by, newest = stage.keys.by, _keyed(watched, stage)
        state = "" if newest is None else f"{newest.window.start}-{newest.window.end}"
        tag = f'W/"{state}-{id(newest):x}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"etag": tag})
        choice = KeyChoice(**{each.name: said[each.name] for each in fields(KeyChoice)})
        tasks = [task.name for task in stage.tasks]
        told = await self._at_leisure(lambda: key_page(stage.name, by, newest, choice, tasks))
        return _json(told, headers={"etag": tag})

    async def _fates(self, request: Request, said: Mapping[str, Any]) -> Response:
        watched = self._pipeline(said)
        watched.look()
        if said["source"] not in watched.sources:
            names = ", ".join(map(repr, watched.sources)) or "none"
            reason = f"there is no source {said['source']!r:.80}, but {names:.500}"
            raise RefusedRequest(HTTPStatus.NOT_FOUND, reason)
        return _json(fates(watched, said["source"], said["since"] or 0.0))

    async def _errors(self, request: Request, said: Mapping[str, Any]) -> Response:
        return _json(FailuresInFull(errors=self._pipeline(said).failures_in_full()))

    # DataSets as they come

    async def _stream(self, request: Request, said: Mapping[str, Any]) -> Response:
        watched = self._pipeline(said)
        if said["stage"] is not None:
            _stage_of(watched, said["stage"])
        client = StreamClient(watched.name, said["stage"], said["key"])
        return EventsResponse(self._slots, self._datasets(client), self.closing)

    async def _web_socket(self, web_socket: Any) -> None:
        scope: Scope = web_socket.scope
        receive: Receive = web_socket.receive
        send: Send = web_socket.send
        operation = next(each for each in OPERATIONS if each.name == "stream")
        taken = False
        try:
            said = operation.query(list(web_socket.query_params.multi_items()))
            watched = self._pipeline(said)
            if said["stage"] is not None:
                _stage_of(watched, said["stage"])
            self._slots.take()
            taken = True
            client = StreamClient(watched.name, said["stage"], said["key"])
            with self._datasets(client) as events:
                await send_messages(receive, send, events, self.closing)
        except RefusedRequest as error:
            await refuse(scope, receive, send, error)
        finally:
            if taken:
                self._slots.give_back()

    @contextlib.contextmanager
    def _datasets(self, client: StreamClient) -> Generator[AsyncGenerator[Event]]:
        """What a client is to be told, from now on until the block is left."""
        self._hub.add(client)
        try:
            yield self._told(client)
        finally:
            self._hub.remove(client)

    async def _told(self, client: StreamClient) -> AsyncGenerator[Event]:
        told_at = -math.inf
        while not self.closing.is_set():
            if time.monotonic() - told_at > BEAT:  # the first time: that it has begun
                yield NOTHING_NEW
                told_at = time.monotonic()
            dropped, message = await client.next(BEAT)
            if dropped:
                yield Event("dropped", b'{"count":%d}' % dropped)
            if message is not None:
                yield Event("dataset", message)
                told_at = time.monotonic()

    # What all of them need

    def _pipeline(self, said: Mapping[str, Any]) -> WatchedPipeline:
        name = said["pipeline"]
        if name is None and len(self._pipelines) == 1:
            return next(iter(self._pipelines.values()))
        names = ", ".join(map(repr, self._pipelines))
        if name is None:
            reason = f"say by pipeline= which one: {names:.500}"
            raise RefusedRequest(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
        found = self._pipelines.get(name)
        if found is None:
            reason = f"there is no pipeline {name!r:.80}, but {names:.500}"
            raise RefusedRequest(HTTPStatus.NOT_FOUND, reason)
        return found

    async def _at_leisure(self, make: Callable[[], T]) -> T:
        """Have something made in another thread: a few at a time, so that it leaves room for what
        the pipelines do."""
        if self._queued >= _MOST_QUEUED:
            raise RefusedRequest(HTTPStatus.SERVICE_UNAVAILABLE, "there is too much to do")
        self._queued += 1
        try:
            async with self._at_work:
                return await asyncio.to_thread(make)
        finally:
            self._queued -= 1


def _endpoint(
    methods: Mapping[str, Operation], handlers: Mapping[str, Handler]
) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        operation = methods[method]
        said = operation.query(request.query_params.multi_items())
        response = await handlers[operation.name](request, said)
        if request.method == "HEAD" and isinstance(response, EventsResponse):
            return Response(media_type="text/event-stream")
        return response

    return answer


def _stage_of(watched: WatchedPipeline, name: str) -> AnyStage:
    found = watched.stage(name)
    if found is None:
        names = ", ".join(repr(stage.name) for stage in watched.pipeline.stages)
        reason = f"there is no stage {name!r:.80}, but {names:.500}"
        raise RefusedRequest(HTTPStatus.NOT_FOUND, reason)
    return found


def _keyed(watched: WatchedPipeline, stage: AnyStage) -> KeyedDataSet[Any, Any] | None:
    newest = watched.newest(stage.name)
    return newest if isinstance(newest, KeyedDataSet) else None


def _access(request: Request) -> Permissions:
    access: Permissions = request.scope[ACCESS]
    return access


def _json(
    told: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    return _json_bytes(msgspec.json.encode(told), status, headers)


def _json_bytes(
    body: bytes, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(body, int(status), headers, "application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedRequest)
    return _json(ErrorTold(error=str(error)), error.status, error.headers)


async def _http_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    told = ErrorTold(error=f"{phrase}: {request.method} {request.url.path[:200]}")
    return _json(told, error.status_code, error.headers)
