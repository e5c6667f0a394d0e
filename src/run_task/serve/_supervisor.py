"""Telling systemd how far the service is, as ``sd_notify(3)`` does: by datagrams to a socket."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

from run_task.observe._log import Log

_log = Log(__name__)

_MICROS: Final = 1e6


class Supervisor:
    """Who has started the process, and wants to be told.

    :param address: the address of its socket; None: nobody wants to
    :param watchdog: after how many seconds without a sign of life it ends the process; None: it
        waits for none
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        self._address = address
        self.watchdog: float | None = watchdog if address is not None else None
        """After how many seconds without a sign of life it ends the process."""

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Supervisor:
        """Who the environment says wants to be told. Programs that this one starts are not to take
        it for theirs, so it is taken out of there.

        :param environment: ``os.environ``
        """
        address = environment.pop("NOTIFY_SOCKET", "")
        micros = environment.pop("WATCHDOG_USEC", "")
        of_process = environment.pop("WATCHDOG_PID", "")
        watchdog: float | None = None
        if micros.isdecimal() and int(micros) and of_process in ("", str(os.getpid())):
            watchdog = int(micros) / _MICROS
        if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
            return cls(None)
        return cls(address, watchdog)

    def ready(self, status: str) -> None:
        """It has begun.

        :param status: what it does, in a line
        """
        self._tell(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """It is alive."""
        self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """It is about to end."""
        self._tell("STOPPING=1\nSTATUS=shutting down")

    def _tell(self, state: str) -> None:
        if self._address is None:
            return
        # Of the abstract namespace, which has no file.
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(), name)
        except OSError as error:
            _log.warning("systemd is not told %r: %s", state, error)
