"""Log records on the standard error."""

from __future__ import annotations

import logging
import sys


class _StandardError(logging.Handler):
    """Writes to what ``sys.stderr`` is at the time, which a live view takes the place of."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def show_log(level: str) -> None:
    """Show log records, of this library and of user code.

    :param level: from which level on
    """
    handler = _StandardError()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler])
