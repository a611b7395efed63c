"""Waits for the end of another run; the triggerer itself answers them, by what its store says."""

from collections.abc import AsyncIterator
from datetime import datetime

from msgspec import Struct

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent

RUN_ENDED = "pubsubflow.RunEnded"
"""The name of the trigger `RunEnded`."""


class RunEnded(Trigger, frozen=True, kw_only=True):
    """Fires when a run of this installation has ended, or a task of it; at once if it has.

    No process of user code is used for it, and nothing is polled: a change of the store wakes the
    triggerer.

    Attributes:
        run_id: The run; None for the first one that matches what follows.
        dag_id: Runs of this DAG.
        task_id: Only until this task of the run has ended.
        logical_time: The run of this tick.
        partition: Runs of this partition.
        since: Runs made then or later.
        states: End states that count; all if there are none.
    """

    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    logical_time: datetime | None = None
    partition: str | None = None
    since: datetime | None = None
    states: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise DefinitionError for a wait that names no run."""
        if (self.run_id is None) == (self.dag_id is None):
            raise DefinitionError("RunEnded needs run_id= or dag_id=, and not both")
        if self.dag_id is not None and self.logical_time is None and self.since is None:
            raise DefinitionError("RunEnded with dag_id= needs logical_time= or since=")
        for name in ("logical_time", "since"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise DefinitionError(f"RunEnded: {name} needs a time zone: {moment} has none")

    def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:  # noqa: ARG002
        """Fail: only a triggerer knows of other runs.

        Raises:
            TriggerError: Always.
        """
        raise TriggerError(
            "a test knows of no other runs: give it the task's result, test(results={…})"
        )


class EndedRun(Struct, frozen=True):
    """A run that has ended, or whose task has: the payload of `RunEnded`.

    Attributes:
        state: Of the task, if the wait names one; else of the run.
        error: Why the run ended, if it says so.
    """

    run_id: str
    dag_id: str
    state: str
    logical_time: datetime | None = None
    partition: str | None = None
    error: str | None = None
