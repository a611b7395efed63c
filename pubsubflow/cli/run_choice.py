"""The choice of runs that commands share: filters by DAG, state, tag, time, params and backfill."""

from dataclasses import dataclass
from typing import Annotated, Any

from pubsubflow.cli.parsers import Moment, moment, split_pair
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.client.bulk import run_filter
from pubsubflow.model.runs.states import RunState


@Parameter(name="*", group="Choice of runs")
@dataclass(frozen=True, kw_only=True)
class RunChoice:
    """Filters of runs; what is left out is not filtered by.

    Args:
        dag: Only runs of this DAG.
        state: Only runs in this state; may be repeated.
        kind: Only runs of this kind, such as manual, dataset, cron or backfill; may be repeated.
        tag: Only runs with this tag, or whose DAG has it; of several, with all of them.
        since: Only runs created then or later; such as 2026-11-20 or -2h.
        until: Only runs created before then.
        partition: Only runs of this partition.
        param: Only runs with this param, as name=value; may be repeated.
        backfill: Only runs that the backfill of this id has made.
    """

    dag: str | None = None
    state: tuple[RunState, ...] = ()
    kind: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    since: Moment = None
    until: Moment = None
    partition: str | None = None
    param: Annotated[tuple[str, ...], Parameter(alias="-p")] = ()
    backfill: str | None = None

    @property
    def empty(self) -> bool:
        """Whether it takes every run."""
        return self == RunChoice()

    def arguments(self) -> dict[str, Any]:
        """Return the filters as arguments of `Client.runs`.

        Raises:
            ConfigError: A moment or a param has another form.
        """
        for pair in self.param:
            split_pair(pair, "param")
        return {
            "dag_id": self.dag,
            "state": [str(state) for state in self.state],
            "kind": self.kind,
            "tags": self.tag,
            "since": moment(self.since),
            "until": moment(self.until),
            "partition": self.partition,
            "params": self.param,
            "backfill": self.backfill,
        }

    def body(self) -> dict[str, Any]:
        """Return the filters as an action on many runs takes them.

        Raises:
            ConfigError: A moment or a param has another form.
        """
        return run_filter(**self.arguments())


EVERY_RUN = RunChoice()
"""No filter."""
