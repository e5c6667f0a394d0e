"""Who a broker is told that one is: by text, file or environment, and shown nowhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

from run_task.errors import ConfigError


class CredentialOptions(TypedDict, total=False):
    """What all that connect to a broker take, to say who they are.

    :param username: the name of the user; None: none
    :param password: the password; it is in no repr, message or log
    :param password_file: a file that holds it, such as one of a secret of systemd or Docker; line
        breaks at its end are not part of it. It is read anew for each connection
    :param password_env: the name of an environment variable that holds it
    """

    username: str | None
    password: str | None
    password_file: str | Path | None
    password_env: str | None


class Credentials:
    """User and password.

    :param where: whose they are, for errors
    :raises ConfigError: if the password is said in two ways, or cannot be read
    """

    __slots__ = ("_env", "_file", "_password", "_where", "username")

    def __init__(
        self,
        where: str,
        username: str | None = None,
        password: str | None = None,
        password_file: str | Path | None = None,
        password_env: str | None = None,
    ) -> None:
        said = {
            "password": password,
            "password_file": password_file,
            "password_env": password_env,
        }
        given = [f"{name}=" for name, value in said.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{where}: {' and '.join(given)} say the same: leave all out but one")
        for name, text in (("username", username), ("password", password)):
            if text is not None and type(text) is not str:
                raise ConfigError(f"{where}: {name}= is a text, and not {type(text).__name__}")
        self._where = where
        self.username: str | None = username
        self._password = password
        self._file = None if password_file is None else Path(password_file)
        self._env = password_env
        self.password()

    def password(self) -> str | None:
        """The password as it is now; None: there is none.

        :raises ConfigError: if it cannot be read
        """
        if self._file is not None:
            try:
                return self._file.read_text().rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"{self._where}: password_file={str(self._file)!r} cannot be read: "
                    f"{type(error).__name__}: write the password there, as text"
                ) from None
        if self._env is not None:
            found = os.environ.get(self._env)
            if found is None:
                raise ConfigError(
                    f"{self._where}: password_env={self._env!r}: there is no such environment "
                    f"variable: set it to the password"
                )
            return found
        return self._password

    def secrets(self) -> list[str]:
        """What is not to be told, whatever an error of a library says."""
        try:
            found = self.password()
        except ConfigError:  # it is gone meanwhile
            found = self._password
        return [found] if found else []

    def __repr__(self) -> str:
        return "Credentials(...)"
