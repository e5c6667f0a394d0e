"""A route that takes rows by POST, as a source."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hmac
import os
import threading
import time
from asyncio import Future
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from datetime import tzinfo
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self, cast

from run_task._extras import need
from run_task.columnar._timestamps import Times
from run_task.data import TimeSeries
from run_task.errors import ChannelClosed, ConfigError, SourceError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.sources._arguments import check
from run_task.sources._faults import Faults, OnFault, StampedAhead, told_ahead
from run_task.sources._inbox import Inbox
from run_task.sources._positioned import Position
from run_task.sources._protocol import SourceInfo
from run_task.sources.http._body import Body, Refused, objects
from run_task.sources.http._server import HttpServer, check_address, is_loopback
from run_task.time._interval import TimeUnit

_log = Log(__name__)

_MOST_REASONS: Final = 100
"""Of how many rows that are refused an answer tells why."""

_RETRY_AFTER: Final = "1"
"""After how many seconds who sends may come again."""

_SLOWEST_BODY: Final = 30.0
"""How many seconds a body may take to come."""


class Confirm(enum.Enum):
    """When a request that brings rows is answered."""

    ENTERED = "entered"
    """Once all of them have entered the data, or were counted under the reason why not. With a
    journal, once it has taken them, which is before the disk keeps them: a kill may lose rows whose
    request was answered."""

    KEPT = "kept"
    """Once all of them are kept, in a checkpoint or a journal, so that they outlive a kill. Without
    either, about a second after they have entered."""


class _Answer:
    """What a request waits for: that its rows, up to its last one, are confirmed.

    :param future: the outcome, in the event loop of the server
    """

    __slots__ = ("future", "number")

    def __init__(self, future: Future[bool]) -> None:
        self.future = future
        self.number = 0  # of its last row

    def give(self, *, confirmed: bool) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self.future.get_loop().call_soon_threadsafe(self._set, confirmed)

    def _set(self, confirmed: bool) -> None:
        if not self.future.done():
            self.future.set_result(confirmed)


class HttpIngest:
    """A source whose rows are sent to a route by POST::

        ingest = HttpIngest(port=8080, timestamp="time")
        pipeline.source(ingest, into=series)

    ::

        curl localhost:8080/rows --json '{"time": 1700000000000, "price": 101.5}'

    A body is JSON (``application/json``: an object, or an array of them) or JSON Lines
    (``application/x-ndjson``), in UTF-8, also compressed by gzip. Rows that enter a series are held
    to its columns at once. The answer is JSON: how many rows were ``accepted``, how many
    ``refused``, and the ``reasons``, of the first hundred. Its status is

    - 200, if all rows were accepted; 207, if some were; 422, if none was. One that is stamped too
      long after the present, ``max_ahead=`` of the pipeline's source, is refused
    - 400, 408, 413, 415, 401, 403, 404, 405 for a request that is refused as a whole, with the
      ``error``
    - 429, with ``Retry-After``, if there is no room for its rows: none of them was taken
    - 503, with ``Retry-After``, if they were not confirmed, since the pipeline ends or stands
      still: whoever sends them again may send some twice

    Without a token only this machine can be listened to, and browsers of it are refused that were
    led here under another name.

    :param host: where to listen: a name or an address of this machine; ``"0.0.0.0"`` is all of IPv4
    :param port: the port; 0: any that is free, which :attr:`port` tells
    :param path: the path of the route
    :param token_env: the environment variable with the token that requests have to bring, as
        ``Authorization: Bearer TOKEN``; None: none
    :param token_file: a file with the token, in its place; None: none
    :param timestamp: the key of a row's timestamp: a number, or a text in ISO 8601
    :param unit: the unit of the timestamps to give; None: that of the data which the rows enter
    :param stored: the unit of timestamps that are numbers; None: the same
    :param zone: what timestamps mean that name no time zone; None: they are in UTC
    :param confirm: when a request is answered
    :param confirm_timeout: after how many seconds one is answered with 503 that is not confirmed
    :param capacity: how many rows may wait to enter
    :param max_bytes: how many bytes a body may have, also decompressed
    :param on_malformed: what to do with a row that is refused, besides telling who sent it
    :raises ConfigError: if one of these cannot be, or other machines could send without a token
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        path: str = "/rows",
        token_env: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        timestamp: str = "timestamp",
        unit: TimeUnit | None = None,
        stored: TimeUnit | None = None,
        zone: str | tzinfo | None = None,
        confirm: Confirm = Confirm.ENTERED,
        confirm_timeout: float = 30.0,
        capacity: int = 100_000,
        max_bytes: int = 1 << 20,
        on_malformed: OnFault = OnFault.SKIP,
    ) -> None:
        where = "HttpIngest"
        check_address(where, host, port)
        check(where, unit or TimeUnit.MILLIS, stored, on_malformed)
        if type(path) is not str or not path.startswith("/") or "{" in path:
            raise ConfigError(f"{where}: path={path!r}: it begins with a slash, as '/rows'")
        if type(timestamp) is not str or not timestamp:
            raise ConfigError(f"{where}: timestamp={timestamp!r}: it is a key of the rows")
        if not isinstance(confirm, Confirm):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            choices = ", ".join(map(str, Confirm))
            raise ConfigError(f"{where}: confirm={confirm!r}: it is one of {choices}")
        positive: dict[str, Any] = {"confirm_timeout": confirm_timeout, "max_bytes": max_bytes}
        for name, value in positive.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{where}: {name}={value!r}: it is a positive number")
        self._token = _token(where, token_env, token_file)
        if self._token is None and not is_loopback(host):
            raise ConfigError(
                f"{where}: host={host!r} takes rows from other machines: say by token_env= or "
                f"token_file= what they have to bring, or listen on '127.0.0.1'"
            )
        Inbox[Any](capacity)  # which refuses what is no capacity
        need("starlette", "http")
        need("uvicorn", "http")
        need("msgspec", "http")
        self._host, self._port, self._path = host, port, path
        self._timestamp, self._stored, self._zone = timestamp, stored, zone
        self._unit = unit
        self._times: Times | None = None
        if unit is not None:
            self.count_in(unit)
        self._confirm, self._confirm_timeout = confirm, float(confirm_timeout)
        self._capacity, self._max_bytes = capacity, int(max_bytes)
        self._faults = Faults(on_malformed)
        self._series: list[TimeSeries] = []
        self._ahead_ns = float("inf")
        self._mutex = threading.Lock()
        self._closed = False
        self._inbox: Inbox[Any] | None = None
        self._server: HttpServer | None = None
        self._failure: BaseException | None = None
        self._given = 0
        self._asked: set[_Answer] = set()  # those that requests wait for
        self._unkept: deque[_Answer] = deque()  # those of rows that are to be kept

    @property
    def port(self) -> int:
        """The port that it listens on; before it does, that which was given."""
        server = self._server
        return self._port if server is None else server.port

    @property
    def listens(self) -> bool:
        """Whether it takes rows now."""
        return self._server is not None

    @property
    def malformed(self) -> int:
        """How many rows were refused so far."""
        return self._faults.count

    def about(self) -> SourceInfo:
        """Its unit, how many rows were refused, and that it has no history."""
        inbox = self._inbox
        return SourceInfo(
            unit=self._unit,
            endless=True,
            malformed=self._faults.count,
            dropped=0 if inbox is None else inbox.dropped,
        )

    def count_in(self, unit: TimeUnit) -> None:
        """Give timestamps in the unit of the data that rows enter, if nobody has said another.

        :param unit: the unit
        :raises ConfigError: if another one has been said
        """
        if self._unit is not None and unit is not self._unit:
            raise ConfigError(
                f"{self!r}: its timestamps are in {self._unit.name.lower()}, and not in "
                f"{unit.name.lower()}"
            )
        self._unit = unit
        self._times = Times("HttpIngest", unit, self._stored, self._zone, 0, None)

    def fitting(self, series: TimeSeries) -> Self:
        """The same source, which refuses what a series would, and tells who sends it.

        :param series: the series
        """
        self._series.append(series)
        return self

    def refuse_ahead(self, ahead_ns: float, /) -> None:
        """Refuse rows that are stamped too long after the present, and tell who sends them.

        :param ahead_ns: how long that is, in nanoseconds
        """
        self._ahead_ns = ahead_ns

    @property
    def position(self) -> Position:
        """How many rows were given, in this run and those before."""
        return self._given

    def seek(self, position: Position) -> None:
        """Count on from there. Rows that were not confirmed are sent again by those who wait for
        that."""
        self._given = int(position)

    def commit(self, position: Position) -> None:
        """Rows are kept: answer those who have sent them, if that is what they wait for."""
        if self._confirm is not Confirm.KEPT:
            return
        with self._mutex:
            while self._unkept and self._unkept[0].number <= position:
                self._unkept.popleft().give(confirmed=True)

    @property
    def lag(self) -> int | None:
        """How many rows wait to enter; None while it does not listen."""
        inbox = self._inbox
        return None if inbox is None or self._server is None else len(inbox)

    def close(self) -> None:
        """Take no more rows. From any thread, any number of times."""
        with self._mutex:
            self._closed = True
        self._stop()

    def __iter__(self) -> Generator[tuple[int, dict[str, Any]]]:
        """The rows as they come. It listens while it is iterated over.

        :raises SourceError: if it cannot listen there, and at a row that is refused, if that is
            fatal
        :raises ConfigError: if nobody has said the unit
        """
        if self._times is None:
            raise ConfigError(f"{self!r}: say by unit= in which unit to give its times")
        with self._mutex:
            if self._closed:
                return
            inbox = self._inbox = Inbox[Any](self._capacity, name=repr(self))
            self._failure = None
        server = HttpServer(repr(self), self._application(), self._host, self._port, self._ended)
        with self._mutex:
            self._server = server
            server.start()
        shown = f"[{self._host}]" if ":" in self._host else self._host
        _log.info("%r takes rows at http://%s:%d%s", self, shown, server.port, self._path)
        try:
            if not self._closed:
                yield from self._rows(inbox)
        finally:
            if not self._closed:  # else it is about to be stopped by who closes it
                self._stop()
        if self._failure is not None and not self._closed:
            reason = f"its server has ended: {self._failure!r}"
            raise SourceError(repr(self), None, None, reason) from self._failure

    def _stop(self) -> None:
        """Listen no more, tell those who wait that their rows are not confirmed, and wait until the
        server has ended."""
        with self._mutex:
            inbox, server = self._inbox, self._server
            self._unkept.clear()
            asked = tuple(self._asked)
        if inbox is not None:
            inbox.close()
        for answer in asked:
            answer.give(confirmed=False)
        if server is not None:
            server.stop()
            server.join()
            self._server = None

    def __repr__(self) -> str:
        return f"HttpIngest({self._host!r}, {self._port})"

    def _rows(self, inbox: Inbox[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows that were sent, and, behind the last row of each request, its answer."""
        for timestamp, (row, answer) in inbox:
            if isinstance(row, StampedAhead):
                self._faults.note_ahead(row)
            elif isinstance(row, SourceError):
                self._faults.note(row)
            else:
                self._given += 1
                yield cast("int", timestamp), row
            if answer is not None:
                self._confirmed(answer)

    def _confirmed(self, answer: _Answer) -> None:
        if self._confirm is Confirm.ENTERED:
            answer.give(confirmed=True)
            return
        answer.number = self._given
        with self._mutex:
            self._unkept.append(answer)

    def _ended(self, failure: BaseException | None) -> None:
        self._failure = failure or SystemExit("it was told to stop")
        inbox = self._inbox
        if inbox is not None:
            inbox.close()

    # In the event loop of the server

    def _application(self) -> Any:
        applications = need("starlette.applications", "http")
        exceptions = need("starlette.exceptions", "http")
        routing = need("starlette.routing", "http")
        json_response = need("starlette.responses", "http").JSONResponse

        async def refuse(_: Any, error: Any) -> Any:
            told = {"error": f"{HTTPStatus(error.status_code).phrase}: POST rows to {self._path}"}
            return json_response(told, error.status_code, error.headers)

        async def take(request: Any) -> Any:
            try:
                status, told = await self._take(request)
            except Refused as error:
                status, told = error.status, {"error": error.reason}
            headers: dict[str, str] = {}
            if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
                headers["Retry-After"] = _RETRY_AFTER
            if status == HTTPStatus.UNAUTHORIZED:
                headers["WWW-Authenticate"] = "Bearer"
            return json_response(told, status, headers)

        application = applications.Starlette(
            routes=[routing.Route(self._path, take, methods=["POST"])],
            exception_handlers={exceptions.HTTPException: refuse},
        )
        application.router.redirect_slashes = False
        return application

    async def _take(self, request: Any) -> tuple[HTTPStatus, Mapping[str, Any]]:
        self._check_sender(request.headers)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has more than {self._max_bytes:,} bytes: send fewer rows at a time",
            )
        body = Body(request.headers.get("content-encoding", "").strip().lower(), self._max_bytes)
        try:
            async with asyncio.timeout(_SLOWEST_BODY):
                found = await body.read(request.stream())
        except TimeoutError:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time") from None
        rows: list[tuple[int, Any]] = []
        reasons: list[Mapping[str, Any]] = []
        for number, given in enumerate(objects(found, request.headers.get("content-type", ""))):
            made = self._made(given)
            if isinstance(made, SourceError):
                made.given = str(given) if isinstance(given, ValueError) else given
                reasons.append({"row": number, "reason": _told(made)})
                rows.append((0, made))
            else:
                rows.append(made)
        if rows:
            await self._enter(rows)
        accepted = len(rows) - len(reasons)
        if not reasons:
            status = HTTPStatus.OK
        else:
            status = HTTPStatus.MULTI_STATUS if accepted else HTTPStatus.UNPROCESSABLE_ENTITY
        return status, {
            "accepted": accepted,
            "refused": len(reasons),
            "reasons": reasons[:_MOST_REASONS],
        }

    def _check_sender(self, headers: Mapping[str, str]) -> None:
        if self._token is None:
            # A page of the web may have its own name point here, and a browser is led to it.
            name = headers.get("host", "").rpartition(":")
            host = (name[0] or name[2]).strip("[]")
            if not is_loopback(host):
                raise Refused(HTTPStatus.FORBIDDEN, f"Host {host!r}: it is called localhost")
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip().encode()
        # Of all requests that bring none, or a wrong one, the same time and the same answer.
        if not hmac.compare_digest(given, self._token) or scheme.lower() != "bearer":
            raise Refused(HTTPStatus.UNAUTHORIZED, "bring the token: Authorization: Bearer TOKEN")

    def _made(self, given: Any) -> tuple[int, dict[str, Any]] | SourceError:
        """The row that was given, or why it is none."""
        if isinstance(given, ValueError):
            return self._fault(None, f"it is no JSON: {given}")
        if not isinstance(given, dict):
            return self._fault(None, f"{brief(given)} is no JSON object")
        row = cast("dict[str, Any]", given)
        if self._timestamp not in row:
            return self._fault(self._timestamp, "there is no timestamp")
        assert self._times is not None
        try:
            timestamp = self._times.parse(row[self._timestamp])
        except ValueError as error:
            return self._fault(self._timestamp, str(error))
        assert self._unit is not None
        ahead_ns = timestamp * self._unit.nanos - time.time_ns()
        if ahead_ns > self._ahead_ns:
            reason = told_ahead(ahead_ns, self._ahead_ns)
            return StampedAhead(repr(self), None, self._timestamp, reason)
        row = {name: value for name, value in row.items() if name != self._timestamp}
        for series in self._series:
            try:
                series.check(timestamp, **row)
            except ConfigError as error:
                return self._fault(None, str(error))
        return timestamp, row

    def _fault(self, column: str | None, reason: str) -> SourceError:
        return SourceError(repr(self), None, column, reason)

    async def _enter(self, rows: list[tuple[int, Any]]) -> None:
        """Let rows enter, and wait until that is confirmed.

        :raises Refused: if there is no room for them, or it is not
        """
        inbox = self._inbox
        assert inbox is not None
        if len(rows) > self._capacity:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{len(rows):,} rows: at most {self._capacity:,} may wait: send fewer at a time",
            )
        # Only this thread puts rows there: so there is room for all of them, or for none.
        if len(inbox) + len(rows) > self._capacity:
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{len(inbox):,} rows wait to enter, and there is no room for {len(rows):,} more: "
                f"send them again later",
            )
        answer = _Answer(asyncio.get_running_loop().create_future())
        with self._mutex:
            self._asked.add(answer)
        last = len(rows) - 1
        confirmed = False
        try:
            for number, (timestamp, row) in enumerate(rows):
                inbox.put(timestamp, (row, answer if number == last else None), timeout=0)
            async with asyncio.timeout(self._confirm_timeout):
                confirmed = await answer.future
        except (ChannelClosed, TimeoutError):
            pass  # which is told below
        finally:
            with self._mutex:
                self._asked.discard(answer)
        if not confirmed:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the rows are not confirmed, since the pipeline ends or stands still: send them "
                "again",
            )


def _told(fault: SourceError) -> str:
    return fault.reason if fault.column is None else f"{fault.column!r}: {fault.reason}"


def _token(where: str, variable: str | None, file: str | os.PathLike[str] | None) -> bytes | None:
    """The token that was said.

    :raises ConfigError: if there is none where it was said to be
    """
    if variable is not None and file is not None:
        raise ConfigError(f"{where}: token_env= and token_file=: say one of them")
    if variable is not None:
        token, origin = os.environ.get(variable, ""), f"token_env={variable!r}"
    elif file is not None:
        origin = f"token_file={os.fspath(file)!r}"
        try:
            token = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"{where}: {origin} cannot be read: {error}") from None
    else:
        return None
    if not (token := token.strip()):
        raise ConfigError(f"{where}: {origin}: there is no token in it")
    return token.encode()
