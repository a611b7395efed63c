"""Replay and backfill: runs from past events, ticks and partitions."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from pubsubflow.cli import output
from pubsubflow.cli.param_values import run_params
from pubsubflow.cli.parsers import moment
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.explain import PlannedRuns
from pubsubflow.model.wire.commands import PlannedRun

_SHOWN_RUNS = 50
_SHOWN_EVENTS = 5
Since = Annotated[str | None, Parameter(name="--from", allow_leading_hyphen=True)]
Until = Annotated[str | None, Parameter(name="--to", allow_leading_hyphen=True)]


async def replay(
    *,
    since: Since,
    until: Until = None,
    dataset: str | None = None,
    dag: tuple[str, ...] = (),
    dry_run: bool = False,
    again: bool = False,
    target: Target = DEFAULT,
) -> None:
    """Evaluate the schedules of DAGs on past events again, and start the runs that follow.

    The runs are those whose last event lies in the time; earlier events count as far as they were
    pending at its beginning. The events pending now stay as they are. Runs that exist are not
    created again.

    Args:
        since: Runs of events recorded from this moment on: 2026-11-20, 2026-11-20T16:00, or -2h.
        until: Runs of events recorded before this moment; now if left out.
        dataset: Only runs that consume an event of this URI.
        dag: Id of a DAG; may be repeated; all that subscribe if left out.
        dry_run: Only list the runs that would start.
        again: Also create runs that exist.
        target: The daemon, and the format of the output.
    """
    start = moment(since)
    if start is None:
        raise ConfigError("--from is missing: add --from 2026-11-20, or --from -2h")
    async with target.client() as client:
        planned = await client.replay(
            since=start,
            until=moment(until),
            dataset=dataset,
            dags=dag,
            dry_run=dry_run,
            again=again,
        )
    if target.json:
        output.show_list(planned)
        return
    for each in planned:
        _show_planned(each)
    if not planned:
        output.show("no DAG subscribes to these events")


async def backfill(
    dag: str,
    /,
    *,
    since: Since = None,
    until: Until = None,
    partition: tuple[str, ...] = (),
    param: Annotated[tuple[str, ...], Parameter(alias="-p")] = (),
    params: str | None = None,
    dry_run: bool = False,
    again: bool = False,
    target: Target = DEFAULT,
) -> None:
    """Create the runs of past ticks, or of partitions, that do not exist yet.

    Args:
        dag: Id of the DAG.
        since: Only ticks from this moment on: 2026-11-20, 2026-11-20T16:00, or -2h.
        until: Only ticks before this moment; now if left out.
        partition: A partition key, in place of ticks; may be repeated.
        param: A param of the runs, as name=value; the value is read as the param's type, as
            JSON, or else as text. May be repeated.
        params: All of the runs' params, as a JSON object.
        dry_run: Only list the runs that would start.
        again: Also create runs that exist.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        planned = await client.backfill(
            dag,
            since=moment(since),
            until=moment(until),
            partitions=partition,
            params=await run_params(client, dag, params, param),
            dry_run=dry_run,
            again=again,
        )
    if target.json:
        output.show_json(planned)
    else:
        _show_planned(planned)


def _show_planned(planned: PlannedRuns) -> None:
    """Print the number of runs, then a list of them."""
    new = [run for run in planned.runs if not run.exists]
    known = len(planned.runs) - len(new)
    verb = "would start" if planned.dry_run else "started"
    text = f"{planned.dag_id}: {verb} {len(new)} run{'s' * (len(new) != 1)}"
    if known:
        text += f"; {known} exist{'s' * (known == 1)} already"
    if planned.reason is not None:
        text += f": {planned.reason.replace('`again`', '--again')}"
    output.show(text)
    if planned.runs:
        _list(planned.runs, dry_run=planned.dry_run)


def _list(runs: Sequence[PlannedRun], *, dry_run: bool) -> None:
    timed = any(run.logical_time for run in runs)
    keyed = any(run.partition for run in runs)
    fed = any(run.events for run in runs)
    listing = output.Listing(
        *("run", "", *["time"] * timed, *["partition"] * keyed, *["events"] * fed),
        right=["events"],
        elastic=["partition"],
    )
    for run in runs[:_SHOWN_RUNS]:
        values = [run.run_id or "(dry run)" * dry_run, "exists" if run.exists else "new"]
        more = [output.moment(run.logical_time)] * timed + [run.partition] * keyed
        listing.row(*values, *more, *[_events(run, named=dry_run)] * fed)
    listing.show(none="")
    if len(runs) > _SHOWN_RUNS:
        output.show(f"… and {len(runs) - _SHOWN_RUNS} more; --json lists all")


def _events(run: PlannedRun, *, named: bool) -> str:
    """Return how many events a run consumes, and the ids of some of them."""
    text = str(len(run.events))
    if not named or not run.events:
        return text
    more = ", …" * (len(run.events) > _SHOWN_EVENTS)
    return f"{text}: {', '.join(run.events[:_SHOWN_EVENTS])}{more}"
