"""Log records on the standard error, or in a file, as people or programs read them."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from datetime import UTC, datetime
from typing import Final

from run_task.cli._user_error import UserError

_FIELDS: Final = ("runner", "task", "window", "shard", "node")


class _StandardError(logging.Handler):
    """Writes to what ``sys.stderr`` is at the time, which a live view takes the place of."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class JsonLines(logging.Formatter):
    """A record as an object of JSON, on a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in _FIELDS:
            if (value := getattr(record, name, None)) is not None:
                told[name] = value if isinstance(value, str) else str(value)
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            told["exception"] = record.exc_text
        return json.dumps(told, separators=(",", ":"))


def show_log(level: str, form: str = "text", file: str | None = None) -> None:
    """Show log records, of this library and of user code.

    :param level: from which level on
    :param form: ``text`` or ``json``
    :param file: where to; once it was moved, as logrotate does, another one is begun, and no line
        is lost. None: to the standard error
    :raises UserError: if there cannot be such a file
    """
    handler: logging.Handler
    if file is None:
        handler = _StandardError()
    else:
        try:
            handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8")
        except OSError as error:
            raise UserError(f"the log file {file!r} cannot be written: {error}") from None
    dates = "%H:%M:%S" if file is None else None  # a terminal shows those of today
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", dates)
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler])
