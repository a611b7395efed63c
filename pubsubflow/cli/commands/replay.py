"""Replay: runs from past events."""

from typing import Annotated

from pubsubflow.cli import output
from pubsubflow.cli.parsers import moment
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.status_line import StatusLine
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
        with StatusLine() as line:
            line.show("the schedules are evaluated on past events …")
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
        show_planned(each)
    if not planned:
        output.show("no DAG subscribes to these events")


def show_planned(planned: PlannedRuns) -> None:
    """Print the number of runs, a list of them, and the backfill that makes them."""
    known = sum(run.exists for run in planned.runs)
    total = len(planned.runs) if planned.planned is None else planned.planned
    new = total - known
    started = sum(run.run_id is not None for run in planned.runs) - known
    verb = "would start" if planned.dry_run else "started"
    text = f"{planned.dag_id}: {verb} {new} run{'s' * (new != 1)}"
    if planned.backfill_id is not None and started < new:
        text = f"{planned.dag_id}: started {started} of {new} runs, the others follow"
    if known:
        text += f"; {known} exist{'s' * (known == 1)} already"
    if planned.reason is not None:
        text += f": {planned.reason.replace('`again`', '--again')}"
    output.show(text)
    if planned.runs:
        _list(planned, total)
    if planned.backfill_id is not None:
        output.show(f"backfill {planned.backfill_id}")


def _list(planned: PlannedRuns, total: int) -> None:
    runs = planned.runs
    timed = any(run.logical_time for run in runs)
    keyed = any(run.partition for run in runs)
    fed = any(run.events for run in runs)
    listing = output.Listing(
        *("run", "", *["time"] * timed, *["partition"] * keyed, *["events"] * fed),
        right=["events"],
        elastic=["partition"],
    )
    absent = "(dry run)" if planned.dry_run else "(to come)"
    for run in runs[:_SHOWN_RUNS]:
        values = [run.run_id or absent * (not run.exists), "exists" if run.exists else "new"]
        more = [output.moment(run.logical_time)] * timed + [run.partition] * keyed
        listing.row(*values, *more, *[_events(run, named=planned.dry_run)] * fed)
    listing.show(none="")
    if total > _SHOWN_RUNS:
        output.show(f"… and {total - _SHOWN_RUNS} more; --json lists {len(runs)}")


def _events(run: PlannedRun, *, named: bool) -> str:
    """Return how many events a run consumes, and the ids of some of them."""
    text = str(len(run.events))
    if not named or not run.events:
        return text
    more = ", …" * (len(run.events) > _SHOWN_EVENTS)
    return f"{text}: {', '.join(run.events[:_SHOWN_EVENTS])}{more}"
