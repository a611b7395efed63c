"""Commands that look into the past."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from pubsubflow.cli import output
from pubsubflow.cli.parsers import moment, pairs
from pubsubflow.cli.target import Asking
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.explain import PlannedRuns
from pubsubflow.model.wire.commands import Planned

_DEFAULT = Asking()
_SHOWN_RUNS = 50
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
    asking: Asking = _DEFAULT,
) -> None:
    """Let DAGs decide about past events once more, from nothing pending.

    A run that exists is not made again. What is pending now is neither used nor changed.

    Args:
        since: From when on the events were recorded: 2026-11-20, 2026-11-20T16:00, or -2h.
        until: Until when; now if left out.
        dataset: Only events of this URI.
        dag: The DAG that is to decide; may be repeated; all that subscribe if left out.
        dry_run: Only tell what would start.
        again: Also make runs that exist.
        asking: Which daemon to ask, and the form of the answer.
    """
    start = moment(since)
    if start is None:
        raise ConfigError("say from when on: --from 2026-11-20, or --from -2h")
    async with asking.client() as client:
        planned = await client.replay(
            since=start,
            until=moment(until),
            dataset=dataset,
            dags=dag,
            dry_run=dry_run,
            again=again,
        )
    if asking.json:
        output.show_list(planned)
        return
    for each in planned:
        _tell(each)
    if not planned:
        output.show("no DAG subscribes to it")


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
    asking: Asking = _DEFAULT,
) -> None:
    """Make the runs of past ticks, or of partitions, that do not exist yet.

    Args:
        dag: Id of the DAG.
        since: From which tick on: 2026-11-20, 2026-11-20T16:00, or -2h.
        until: Up to which tick, itself excluded; now if left out.
        partition: A partition key, in place of ticks; may be repeated.
        param: One of the runs' params, as name=value; the value is JSON if it can be, else text.
        params: All of the runs' params, as a JSON object.
        dry_run: Only tell what would start.
        again: Also make runs that exist.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        planned = await client.backfill(
            dag,
            since=moment(since),
            until=moment(until),
            partitions=partition,
            params=pairs(params, param, "param") or None,
            dry_run=dry_run,
            again=again,
        )
    if asking.json:
        output.show_json(planned)
    else:
        _tell(planned)


def _tell(planned: PlannedRuns) -> None:
    """Sum up, then name the runs."""
    new = [run for run in planned.runs if not run.exists]
    known = len(planned.runs) - len(new)
    verb = "would start" if planned.dry_run else "started"
    text = f"{planned.dag_id}: {verb} {len(new)} run{'s' * (len(new) != 1)}"
    if known:
        text += f"; {known} exist{'s' * (known == 1)} already"
    output.show(text)
    if planned.runs:
        _list(planned.runs, dry_run=planned.dry_run)


def _list(runs: Sequence[Planned], *, dry_run: bool) -> None:
    timed = any(run.logical_time for run in runs)
    keyed = any(run.partition for run in runs)
    fed = any(run.events for run in runs)
    listing = output.Listing(
        *("run", "", *["time"] * timed, *["partition"] * keyed, *["events"] * fed),
        right=["events"],
        elastic=["partition"],
    )
    for run in runs[:_SHOWN_RUNS]:
        cells = [run.run_id or "(dry run)" * dry_run, "exists" if run.exists else "new"]
        more = [output.moment(run.logical_time)] * timed + [run.partition] * keyed
        listing.row(*cells, *more, *[str(len(run.events))] * fed)
    listing.show(none="")
    if len(runs) > _SHOWN_RUNS:
        output.show(f"… and {len(runs) - _SHOWN_RUNS} more; --json tells all")
