"""What was said of a sink when results were sent to it: what to do while it cannot take them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from run_task.errors import ConfigError, SinkError
from run_task.observe._format import brief
from run_task.pipeline._dead_letters import DeadLetters
from run_task.sinks._protocol import Sink
from run_task.sinks._spool import Spool, as_spool
from run_task.time._retry import Retry, Then

_BRIEF: Final = Retry(attempts=7, wait="100ms", longest="10s")
"""Where nobody said anything: a server that is away for a few seconds costs nothing, and what does
not come back is told soon."""


class SinkOptions(TypedDict, total=False):
    """The options of :meth:`~run_task.Stage.sink`, which says what each of them does."""

    retry: Retry | None
    spool: str | os.PathLike[str] | Spool | None
    dead_letters: Any


@dataclass(frozen=True, slots=True)
class SinkPolicy:
    """What was said of a sink.

    :param retry: how often what failed is tried again; None: nobody said
    :param spool: where results wait while it is away; None: in memory alone
    :param letters: where results go that it does not get
    :param given: what the latter was made of
    """

    retry: Retry | None = None
    spool: Spool | None = None
    letters: DeadLetters | None = None
    given: Any = None

    @classmethod
    def checked(
        cls, where: str, pipeline: str, sink: Sink, options: SinkOptions, before: SinkPolicy | None
    ) -> SinkPolicy:
        """A policy, if it can be one.

        :param where: who sends results, for messages
        :param pipeline: the name of the pipeline
        :param options: what is said now
        :param before: what was said of the same sink, for other results; None: nothing
        :raises ConfigError: if something about it cannot work, or is not what was said before
        """
        retry, given = options.get("retry"), options.get("dead_letters")
        if retry is not None and not isinstance(retry, Retry):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise ConfigError(f"{where}: retry={brief(retry)}: it is a Retry(...), of run_task")
        spool = as_spool(where, options.get("spool"))
        if before is not None:
            for name, new, old in (
                ("spool", spool, before.spool),
                ("retry", retry, before.retry),
                ("dead_letters", given, before.given),
            ):
                if new is not None and old is not None and new != old:
                    raise ConfigError(
                        f"{where}: sink={brief(sink)}: {name}={brief(new)}, and before it was "
                        f"{brief(old)}: a sink has one for all results, so say it once"
                    )
            retry, spool = retry or before.retry, spool or before.spool
            if given is None or before.letters is not None:
                return cls(retry, spool, before.letters, before.given)
        if given is sink:
            raise ConfigError(
                f"{where}: dead_letters={brief(given)}: it is the sink itself, which did not take "
                f"them: give another one"
            )
        name = brief(sink)
        letters = DeadLetters.checked(where, pipeline, name, given, f"sink {name}")
        return cls(retry, spool, letters, given)

    def tries_again(self, error: BaseException, *, flushing: bool) -> bool:
        """Whether a sink is asked again that has raised.

        :param error: what it raised; in ``write``, no ``SinkError``
        :param flushing: whether it did so in ``flush``
        """
        if isinstance(error, ConfigError):  # that is not going to be another time
            return False
        if self.retry is not None:
            return isinstance(error, Exception)
        return isinstance(error, OSError) or (flushing and isinstance(error, SinkError))

    @property
    def followed(self) -> Retry:
        """How often it is tried."""
        return self.retry or _BRIEF

    @property
    def drops(self) -> bool:
        """Whether results may be left out, so that the rest goes on."""
        return self.followed.then is Then.DROP
