"""What becomes of results that cannot enter data: each costs itself, unless it was said so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from run_task.errors import ConfigError, described
from run_task.observe._format import brief
from run_task.pipeline._dead_letters import DeadLetters
from run_task.pipeline._refusals import Omission, Refusals
from run_task.sinks._protocol import Result
from run_task.sources._faults import OnFault


@dataclass(frozen=True, slots=True, eq=False)
class ResultFaults:
    """What was said of results on their way into data.

    :param pipeline: the pipeline's name
    :param stage: the name of the stage that gives them
    :param into: the data
    :param policy: what to do with one that cannot enter
    :param letters: where such go; None: nowhere
    :param refusals: counts them
    """

    pipeline: str
    stage: str
    into: Any
    policy: OnFault
    letters: DeadLetters | None
    refusals: Refusals

    @classmethod
    def checked(
        cls,
        pipeline: str,
        stage: str,
        into: Any,
        on_bad_result: object,
        dead_letters: object,
        refusals: Refusals,
    ) -> ResultFaults:
        """The same, if it can be.

        :raises ConfigError: if something about it cannot work
        """
        where = f"stage {stage!r}"
        if not isinstance(on_bad_result, OnFault):
            raise ConfigError(
                f"{where}: on_bad_result={on_bad_result!r}: it is OnFault.SKIP or OnFault.RAISE, "
                f"of run_task.sources"
            )
        origin = f"results of stage {stage!r} for {brief(into)}"
        letters = DeadLetters.checked(where, pipeline, stage, dead_letters, origin)
        return cls(pipeline, stage, into, on_bad_result, letters, refusals)

    def takes(self, dataset: Any, error: BaseException) -> bool:
        """Count a result that could not enter, and log it. Returns whether the stage goes on.

        :param error: what its ingest has raised
        """
        result = Result.of(self.pipeline, self.stage, dataset)
        self.refusals.note(
            *(Omission.REJECTED, self.into, [result], described(error), self.letters)
        )
        return self.policy is OnFault.SKIP
