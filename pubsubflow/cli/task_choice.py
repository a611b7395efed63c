"""The choice of tasks over many runs that commands share: filters by task, state, DAG and run."""

from dataclasses import dataclass
from typing import Annotated, Any

from pubsubflow.cli.parsers import Moment, moment, split_pair
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.client.bulk import task_filter
from pubsubflow.model.runs.states import RunState


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TaskChoice:
    """Filters of tasks over many runs; what is left out is not filtered by.

    Args:
        dag: Only tasks of this DAG.
        task: Only instances of the task with this id; may be repeated.
        state: Only tasks in this state; may be repeated.
        run_state: Only tasks of runs in this state; may be repeated.
        kind: Only tasks of runs of this kind, such as manual or backfill; may be repeated.
        tag: Only tasks of runs with this tag, or whose DAG has it; of several, with all of them.
        since: Only tasks of runs created then or later; such as 2026-11-20 or -2h.
        until: Only tasks of runs created before then.
        partition: Only tasks of runs of this partition.
        param: Only tasks of runs with this param, as name=value; may be repeated.
    """

    dag: str | None = None
    task: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    run_state: tuple[RunState, ...] = ()
    kind: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    since: Moment = None
    until: Moment = None
    partition: str | None = None
    param: Annotated[tuple[str, ...], Parameter(alias="-p")] = ()

    @property
    def empty(self) -> bool:
        """Whether it takes every task."""
        return self == TaskChoice()

    @property
    def only_states(self) -> bool:
        """Whether it says nothing but states."""
        return self == TaskChoice(state=self.state)

    def arguments(self) -> dict[str, Any]:
        """Return the filters as arguments of `Client.tasks_of_runs`.

        Raises:
            ConfigError: A moment or a param has another form.
        """
        for pair in self.param:
            split_pair(pair, "param")
        return {
            "task_ids": self.task,
            "states": self.state,
            "run_states": [str(state) for state in self.run_state],
            "dag_id": self.dag,
            "kind": self.kind,
            "tags": self.tag,
            "since": moment(self.since),
            "until": moment(self.until),
            "partition": self.partition,
            "params": self.param,
        }

    def body(self) -> dict[str, Any]:
        """Return the filters as an action on many tasks takes them.

        Raises:
            ConfigError: A moment or a param has another form.
        """
        return task_filter(**self.arguments())


EVERY_TASK = TaskChoice()
"""No filter."""
