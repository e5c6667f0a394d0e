"""Who gets in: requests are refused here before anything is done for them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, TypeAlias

import msgspec

from run_task.serve._shapes import ErrorTold
from run_task.serve._tokens import Tokens
from run_task.sources.http._server import is_loopback

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

ACCESS: Final = "run_task.access"
"""Where a scope has what whoever asks may do."""

_OPEN: Final = ("/health", "/ready")
"""What anybody may ask, under any name: it tells nothing but whether all is well."""

_MOST_BODY: Final = 1 << 16
"""How many bytes a body may have. No route needs one."""

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

_API_CSP: Final = b"default-src 'none'; frame-ancestors 'none'"


class Permissions(msgspec.Struct, frozen=True):
    """What whoever asks may do.

    :param read: whether they may look
    :param change: whether they may change something
    :param session: the session that they brought; None: none that lasts
    """

    read: bool
    change: bool
    session: str | None = None


class RefusedRequest(Exception):
    """A request is refused.

    :param status: with which status
    :param reason: why, in a line
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer has beside its reason: how to be let in, or when to ask again."""
        match self.status:
            case HTTPStatus.UNAUTHORIZED:
                return {"www-authenticate": "Bearer"}
            case HTTPStatus.SERVICE_UNAVAILABLE:
                return {"retry-after": "1"}
            case _:
                return {}


class Guard:
    """Lets requests through to an application, or refuses them.

    :param application: the application
    :param tokens: who may do what
    :param needs_token: whether looking needs the token, too
    :param names: under which names it may be asked, besides those of this machine for itself
    :param port: the port, which the name of the cookie has
    """

    def __init__(
        self,
        application: Application,
        tokens: Tokens,
        *,
        needs_token: bool,
        names: Iterable[str],
        port: int,
    ) -> None:
        self._application = application
        self._tokens = tokens
        self.needs_token = needs_token
        self._names = {name.lower().rstrip(".") for name in names}
        self.cookie: str = f"run_task_{port}"
        """The name of the cookie with the session: cookies do not tell ports apart."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        try:
            headers = _headers(scope)
            scope[ACCESS] = self._check(scope, headers)
        except RefusedRequest as error:
            await refuse(scope, receive, send, error)
            return
        await self._application(scope, _bounded(receive), _with_headers(send))

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> Permissions:
        """What whoever asks may do.

        :raises RefusedRequest: if it is nothing
        """
        path: str = scope["path"]
        method = scope.get("method", "GET")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 9 or int(length) > _MOST_BODY:
            reason = f"a body has at most {_MOST_BODY:,} bytes"
            raise RefusedRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        if path in _OPEN:
            return self._access(headers)
        self._check_host(headers)
        self._check_origin(scope, method, headers)
        access = self._access(headers)
        if _is_page(path) or path == "/api/session":
            return access
        if not access.read:
            raise RefusedRequest(
                HTTPStatus.UNAUTHORIZED, "bring the token: Authorization: Bearer TOKEN"
            )
        if method not in ("GET", "HEAD", "OPTIONS") and not access.change:
            if not self._tokens.is_set:
                raise RefusedRequest(
                    HTTPStatus.FORBIDDEN,
                    "nothing can be changed: the service was started without a token",
                )
            raise RefusedRequest(
                HTTPStatus.UNAUTHORIZED,
                "changes need the token: Authorization: Bearer TOKEN",
            )
        return access

    def _access(self, headers: Mapping[str, str]) -> Permissions:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if self._tokens.is_token(given.strip()) and scheme.lower() == "bearer":
            return Permissions(read=True, change=True)
        session = self._session(headers)
        if session is not None and self._tokens.is_session(session):
            return Permissions(read=True, change=True, session=session)
        return Permissions(read=not self.needs_token, change=False)

    def _session(self, headers: Mapping[str, str]) -> str | None:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return None
        found = cookies.get(self.cookie)
        return None if found is None else found.value

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """Refuse names that may be anybody's: a page of the web may have its own name point here,
        and its browser then takes what is here for its own."""
        host = name_of(headers.get("host", ""))
        if not self.needs_token:
            allowed = is_loopback(host)  # all that listens there is asked by this machine
        else:
            allowed = is_loopback(host) or is_address(host) or host in self._names
        if not allowed:
            raise RefusedRequest(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"Host {host!r:.80} is not a name of this service: start it with --name, if it is",
            )

    def _check_origin(self, scope: Scope, method: str, headers: Mapping[str, str]) -> None:
        """Refuse what other sites have a browser send."""
        site = headers.get("sec-fetch-site", "same-origin")
        leads_here = (
            scope["type"] == "http"
            and method == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and _is_page(scope["path"])
        )
        if site not in ("same-origin", "none") and not leads_here:
            raise RefusedRequest(HTTPStatus.FORBIDDEN, "another site has sent this request")
        origin = headers.get("origin")
        if origin is None or (method in ("GET", "HEAD") and scope["type"] == "http"):
            return
        if origin.partition("://")[2].lower() != headers.get("host", "").lower():
            raise RefusedRequest(HTTPStatus.FORBIDDEN, f"Origin {origin!r:.80} is another site")


def own_names() -> set[str]:
    """What this machine calls itself."""
    try:
        return {socket.gethostname(), socket.getfqdn()}
    except OSError:
        return set()


def name_of(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _is_page(path: str) -> bool:
    """Whether it is of the page, which tells nothing of a pipeline by itself."""
    return path not in ("/api", "/metrics") and not path.startswith("/api/")


def is_address(host: str) -> bool:
    """Whether it is no name, but an address, which nobody else can have point here."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _headers(scope: Scope) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "origin", "authorization", "content-length"):
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, f"{key} stands there twice")
        found[key] = value.decode("latin-1")
    return found


def _bounded(receive: Receive) -> Receive:
    """Refuse a body that is longer than it may be: it ends as if whoever sends it had gone."""
    received = 0

    async def take() -> MutableMapping[str, Any]:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > _MOST_BODY:
            return {"type": "http.disconnect"}
        return message

    return take


def _with_headers(send: Send) -> Send:
    """Have browsers take care with whatever is answered."""

    async def give(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            there = {name.lower() for name, _ in headers}
            headers += [pair for pair in _HEADERS if pair[0] not in there]
            if b"content-security-policy" not in there:
                headers.append((b"content-security-policy", _API_CSP))
            if b"cache-control" not in there:
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers}
        await send(message)

    return give


async def refuse(scope: Scope, receive: Receive, send: Send, error: RefusedRequest) -> None:
    """Answer that a request is refused."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": error.reason[:120]})
        return
    headers = [(b"content-type", b"application/json")]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    give = _with_headers(send)
    await give({"type": "http.response.start", "status": int(error.status), "headers": headers})
    body = msgspec.json.encode(ErrorTold(error=error.reason))
    await give({"type": "http.response.body", "body": body})
