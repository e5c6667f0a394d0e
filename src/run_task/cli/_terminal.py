"""The terminal while a view is on it: what is typed does not show, and all is put back after."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

_SHOW_CURSOR: Final = b"\x1b[?25h\n"
_LOCAL_FLAGS: Final = 3
"""Where they stand in what ``termios.tcgetattr`` gives."""


class Terminal:
    """The terminal that the program was started in, if there is one."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def __enter__(self) -> Terminal:
        # The echo of Ctrl-C would move the cursor, and with it all that is drawn next.
        if (descriptor := _typed_into()) is not None:
            import termios

            self._before = termios.tcgetattr(descriptor)
            quiet = list(self._before)
            quiet[_LOCAL_FLAGS] &= ~termios.ECHO
            termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._restore_echo()

    def leave(self) -> None:
        """Put it back in the middle of a drawing, since the process ends at once."""
        self._restore_echo()
        with suppress(OSError):
            os.write(1, _SHOW_CURSOR)

    def _restore_echo(self) -> None:
        if self._before is not None and (descriptor := _typed_into()) is not None:
            import termios

            termios.tcsetattr(descriptor, termios.TCSANOW, self._before)
            self._before = None


def _typed_into() -> int | None:
    """The terminal in which one can type to this process; in the background, one cannot, and who
    touches it there is stopped."""
    if os.name != "posix" or sys.__stdin__ is None or not sys.__stdin__.isatty():
        return None
    descriptor = sys.__stdin__.fileno()
    try:
        return descriptor if os.tcgetpgrp(descriptor) == os.getpgrp() else None
    except OSError:  # it is not the terminal of this session, and cannot stop us
        return descriptor
