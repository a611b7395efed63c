"""Simulation of a schedule by the daemon: which runs it would start for given events."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from pubsubflow.cli import output
from pubsubflow.cli.commands.replay import Since, Until
from pubsubflow.cli.parsers import moment
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.errors import ConfigError
from pubsubflow.model.schedule.simulations import SimulationView

_EXAMPLE = "--event '2026-11-20T09:00 s3://lake/orders 2026-11-20 {\"rows\": 3}'"


async def simulate_schedule(
    dag: str | None = None,
    /,
    *,
    schedule: str | None = None,
    event: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)] = (),
    since: Since = None,
    until: Until = None,
    lasts: float = 0.0,
    target: Target = DEFAULT,
) -> None:
    """Show which runs a schedule would start for given events; nothing is started.

    The manager's own code decides, on a clock that jumps.

    Args:
        dag: Id of a DAG, whose schedule and params are taken.
        schedule: In place of its schedule, or without a DAG: one as in a DAG file, such as
            'Dataset("s3://lake/orders") & Cron("0 6 * * *")'.
        event: When and of which dataset: '2026-11-20T09:00 s3://lake/orders'; after it may stand
            a partition, and extra as a JSON object. May be repeated.
        since: Where time begins; an hour before the first event if left out.
        until: Where it ends; a day after the last event if left out.
        lasts: How many seconds each run is active.
        target: The daemon, and the format of the output.
    """
    if dag is None and schedule is None:
        raise ConfigError("name a DAG, or give a --schedule")
    events = [_event(each) for each in event]
    async with target.client() as client:
        found = await client.simulate(
            dag,
            schedule=schedule,
            events=events,
            since=moment(since),
            until=moment(until),
            lasts_seconds=lasts,
        )
    if target.json:
        output.show_json(found)
    else:
        _show(found, events)


def _event(text: str) -> dict[str, Any]:
    time, _, rest = text.strip().partition(" ")
    uri, _, rest = rest.strip().partition(" ")
    partition, brace, extra = rest.partition("{")
    if not uri:
        raise ConfigError(f"{text!r} is not an event: write {_EXAMPLE}")
    try:
        values = msgspec.json.decode(brace + extra, type=dict[str, Any]) if brace else {}
    except msgspec.DecodeError as error:
        raise ConfigError(f"the extra of {text!r} is not a JSON object: {error}") from error
    found = {"dataset": uri, "time": moment(time), "extra": values}
    return found | ({"partition": partition.strip()} if partition.strip() else {})


def _show(found: SimulationView, events: Sequence[Mapping[str, Any]]) -> None:
    output.show(found.schedule, "")
    listing = output.Listing("at", "partition", "consumes", "why", elastic=["consumes", "why"])
    for run in found.runs:
        why = run.cause if run.refused is None else f"refused: {run.refused}"
        names = ", ".join(_name(events[each]) for each in run.events)
        listing.row(output.moment(run.at), run.partition, names, why)
    listing.show(none=f"no run would start until {output.moment(found.until)}")
    if found.more_runs:
        output.show(f"… and {found.more_runs} more")
    if found.outcomes:
        output.show("")
        rest = output.Listing("event", "outcome", "partition", "why", elastic=["event", "why"])
        for each in found.outcomes:
            name = _name(events[each.event])
            rest.row(name, output.state(each.outcome), each.partition, each.reason)
        rest.show(none="")
    for waiting in found.waiting:
        of = "" if waiting.partition is None else f"partition {waiting.partition} "
        output.show(f"in the end {of or 'it '}waits for {waiting.waits_for}")


def _name(event: Mapping[str, Any]) -> str:
    return f"{event['dataset']} at {output.moment(event['time'])}"
