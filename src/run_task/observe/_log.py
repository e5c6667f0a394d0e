"""Logging: the fields that every record has, and that a handler which raises does no harm."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Generator, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from run_task.errors import escaped

if TYPE_CHECKING:
    _Adapter: TypeAlias = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # which is no generic to all tools that read it at runtime


class Log(_Adapter):
    """A logger whose records all have the fields ``runner``, ``task``, ``window``, ``shard`` and
    ``node``.

    What a record is not about is None, so a format may name all of them.

    ``extra={"task": ..., "window": ...}`` says what a record is about.

    Whatever a record tells of, its message is one line without control characters, and a traceback
    has none besides its line breaks, after which no line begins at the margin: data that came from
    outside neither steers a terminal nor forges a line of a log.

    Whatever a handler or a filter of the program raises, and whatever the text of a record raises,
    ends here: a record that cannot be logged is no reason for a runner to end. It is told on
    standard error, unless :data:`logging.raiseExceptions` is off, as logging itself does.

    :param module: the module that logs; the logger is named after its public package, since
        modules come and go
    :param runner: the name of the runner that it logs for; None: for none in particular
    """

    def __init__(self, module: str, runner: str | None = None) -> None:
        logger = logging.getLogger(module.partition("._")[0])
        logger.addFilter(_escape)  # which is there once, however often it is added
        super().__init__(
            logger,
            {"runner": runner, "task": None, "window": None, "shard": None, "node": None},
        )

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Complete the fields of a record."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a record. Every method of a logger comes here."""
        # A frame of this module more is between the record and who logs it.
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception:
            _tell()
        except BaseException:
            # In the main thread it may be a Ctrl-C, or another signal's handler that ends the
            # program, which came in this moment. No other thread has these.
            if threading.current_thread() is threading.main_thread():
                raise
            _tell()


class _Escaped:
    """Something that a record tells of; its text is made when the record's is."""

    __slots__ = ("_thing",)

    def __init__(self, thing: object) -> None:
        self._thing = thing

    def __str__(self) -> str:
        return escaped(str(self._thing))

    def __repr__(self) -> str:
        return escaped(repr(self._thing))


_PLAIN: Final = (int, float, type(None), _Escaped)


def silence(library: str) -> None:
    """Let a library that we use log what is critical, and no more, unless the program has said what
    it is to log: what concerns its users we say ourselves.

    :param library: the name of its logger
    """
    if (log := logging.getLogger(library)).level == logging.NOTSET:
        log.setLevel(logging.CRITICAL)


@contextlib.contextmanager
def filtered(library: str, takes: Callable[[logging.LogRecord], bool]) -> Generator[None]:
    """Ask of each record of a library that we use whether it is logged, until the block is left.

    :param library: the name of its logger
    :param takes: whether one is
    """
    log = logging.getLogger(library)
    log.addFilter(takes)
    try:
        yield
    finally:
        log.removeFilter(takes)


def quiet() -> None:
    """Have the library log nothing in this process, of which another one tells."""
    logging.getLogger("run_task").setLevel(logging.CRITICAL)


def _escape(record: logging.LogRecord) -> bool:
    """A filter that takes every record, and escapes what it tells of."""
    if isinstance(record.msg, str):
        record.msg = escaped(record.msg)
    if isinstance(record.args, tuple):
        record.args = tuple(
            arg
            if isinstance(arg, _PLAIN) or (isinstance(arg, str) and arg.isprintable())
            else _Escaped(arg)
            for arg in record.args
        )
    for field in ("runner", "task", "node"):
        value = getattr(record, field, None)
        if isinstance(value, str):
            setattr(record, field, escaped(value))
    if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
        # A formatter takes the text that is there.
        lines = traceback.format_exception(record.exc_info[1])
        text = "".join(lines).rstrip("\n")
        record.exc_text = "\n    ".join(map(escaped, text.split("\n")))
    return True


def _tell() -> None:
    """Tell of an error in the logging itself, as :meth:`logging.Handler.handleError` does."""
    if logging.raiseExceptions:
        with contextlib.suppress(Exception):  # there may be nowhere to tell it
            sys.stderr.write("--- Logging error ---\n")
            traceback.print_exc(file=sys.stderr)
