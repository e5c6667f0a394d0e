"""Who may look, and who may change something: a token, and sessions that were begun with it."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from pathlib import Path
from typing import Final

from run_task.errors import ConfigError

TOKEN_VARIABLE: Final = "RUN_TASK_TOKEN"
"""The environment variable with the token, where no file is said."""

_SHORTEST: Final = 16
"""How many characters a token has at least: what is shorter may be guessed."""

_SESSION_FOR: Final = 12 * 3600.0
"""How many seconds a session lasts."""

_MOST_SESSIONS: Final = 1000


def read_token(file: str | os.PathLike[str] | None) -> str | None:
    """The token, out of a file or the environment.

    :param file: the file; None: the environment variable ``RUN_TASK_TOKEN``, if it is there
    :return: None: there is none
    :raises ConfigError: if there is no token in the file, it is short, or others can read the file
    """
    if file is None:
        token, origin = os.environ.get(TOKEN_VARIABLE, "").strip(), TOKEN_VARIABLE
        if not token:
            return None
    else:
        origin = f"the token file {os.fspath(file)!r}"
        try:
            path = Path(file)
            token = path.read_text(encoding="utf-8").strip()
            mode = path.stat().st_mode
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"{origin} cannot be read: {error}") from None
        if os.name == "posix" and mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConfigError(
                f"{origin} can be read or written by every user of this machine: chmod 600 it"
            )
    return checked_token(token, origin)


def checked_token(token: str, origin: str) -> str:
    """A token, if it can be one.

    :param origin: where it stands, for messages, which do not tell it
    :raises ConfigError: if it is short, or has blanks in it
    """
    if len(token) < _SHORTEST or not token.isprintable() or not token.isascii() or " " in token:
        raise ConfigError(
            f"{origin}: a token is {_SHORTEST} or more characters of ASCII without blanks, as "
            f"`openssl rand -hex 32` makes one"
        )
    return token


class Tokens:
    """Knows the token, by what its hash is, and the sessions that were begun with it.

    :param token: the token; None: there is none, and nobody may change anything
    """

    def __init__(self, token: str | None) -> None:
        self._hash = None if token is None else _hash(token)
        self._sessions: dict[bytes, float] = {}  # by hash, until when; the oldest first

    @property
    def is_set(self) -> bool:
        """Whether there is a token."""
        return self._hash is not None

    def is_token(self, given: str) -> bool:
        """Whether it is the token. It takes the same time whatever is given."""
        expected = b"" if self._hash is None else self._hash
        return hmac.compare_digest(_hash(given), expected)

    def begin(self) -> str:
        """Begin a session. Returns what tells it from others."""
        self._forget()
        while len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        made = secrets.token_urlsafe(32)
        self._sessions[_hash(made)] = time.monotonic() + _SESSION_FOR
        return made

    def is_session(self, given: str) -> bool:
        """Whether it is a session that lasts. It is looked up by its hash, which tells nothing of
        how much of it was right."""
        self._forget()
        return _hash(given) in self._sessions

    def end(self, given: str) -> None:
        """End a session."""
        self._sessions.pop(_hash(given), None)

    def _forget(self) -> None:
        now = time.monotonic()
        while self._sessions:
            oldest = next(iter(self._sessions))
            if self._sessions[oldest] > now:
                return
            del self._sessions[oldest]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
