"""Datasets and their events."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Limit, Moment, moment, pairs
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.texts import Grid, Text, Tree
from pubsubflow.model.api.datasets import ConsumerView, DatasetDetail
from pubsubflow.model.api.resources import DatasetView, EventView
from pubsubflow.terminal_text import terminal_safe_line

if TYPE_CHECKING:
    from pubsubflow.model.api.explain import EventOutcomeView, EventWithOutcomes

_COUNTED = 1000
_STYLES = {
    "consumed": "green",
    "pending": "blue",
    "filtered": "yellow",
    "expired": "yellow",
    "skipped": "dim",
    "unseen": "dim",
    "dead": "bold red",
    "held": "bold yellow",
    "discarded": "dim",
    "waiting": "blue",
    "passed": "green",
    "failed": "bold red",
    "error": "bold red",
    "removed": "dim",
}


async def list_datasets(
    *,
    text: str | None = None,
    held: Annotated[bool, Parameter(negative="")] = False,
    stale: Annotated[bool, Parameter(negative="")] = False,
    limit: Limit | None = None,
    target: Target = DEFAULT,
) -> None:
    """List datasets with their last event and the DAGs that subscribe to them.

    Args:
        text: Only datasets with this in their URI, in any case.
        held: Only datasets of which checks hold events.
        stale: Only datasets that have had no event for as long as they declare.
        limit: How many datasets at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.datasets(text=text, held=held, stale=stale, limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("dataset", "last event", "fresh", "subscribers"),
            elastic=["subscribers"],
            times=["last event"],
        )
        async for each in found:
            last = output.brief(each.last_event_at)
            listing.row(each.dataset, last, _fresh(each), ", ".join(each.consumers))
    listing.show(none="no datasets")


def _fresh(dataset: DatasetView) -> str:
    """Return how often a dataset is to have an event, and whether it has."""
    if dataset.fresh_seconds is None:
        return ""
    age = f"within {timedelta(seconds=dataset.fresh_seconds)}"
    return age if dataset.stale_alert is None else f"{age}: no, alert {dataset.stale_alert}"


async def show_dataset(dataset: str, /, *, target: Target = DEFAULT) -> None:
    """Show a dataset: the tasks that emit its events, and how far behind its subscribers are.

    Args:
        dataset: URI of the dataset.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.dataset(dataset)
    if target.json:
        output.show_json(found)
        return
    output.show(_facts(found))
    if found.producers:
        output.show("")
        listing = output.Listing("emitted by", "last event", "", times=["last event"])
        for each in found.producers:
            note = "" if each.declared else "not an outlet"
            listing.row(f"{each.dag_id}.{each.task_id}", output.brief(each.last_event_at), note)
        listing.show(none="")
    if found.subscribers:
        output.show("")
        _show_subscribers(found.subscribers)
    if found.checks:
        output.show("")
        listing = output.Listing("check", "held events", right=["held events"])
        for check in found.checks:
            name = f"{check.check} (paused)" if check.paused else check.check
            listing.row(name, f"{_COUNTED} or more" if check.held >= _COUNTED else str(check.held))
        listing.show(none="")
    if found.last_events:
        output.show("")
        _show_events(found.last_events)
    for alert in found.alerts:
        output.show("", Text(f"alert {alert.id} ({alert.kind}): {alert.text}", "red"))


def _facts(dataset: DatasetDetail) -> Grid:
    return output.facts(
        [
            ("dataset", dataset.dataset),
            ("name", dataset.name),
            ("group", dataset.group),
            ("extra", output.compact(dataset.extra)),
            ("known since", output.moment(dataset.created_at)),
            ("last event", output.moment(dataset.last_event_at) or "none yet"),
            ("fresh", _fresh(dataset)),
            ("from outside", ", ".join(dataset.sources)),
            ("emitted by", None if dataset.producers else "no task"),
            ("subscribers", None if dataset.subscribers else "no DAG"),
        ]
    )


def _show_subscribers(subscribers: Sequence[ConsumerView]) -> None:
    listing = output.Listing("subscriber", "pending events", "oldest", right=["pending events"])
    for each in subscribers:
        name = f"{each.dag_id} (paused)" if each.paused else each.dag_id
        count = f"{_COUNTED} or more" if each.pending >= _COUNTED else str(each.pending)
        ago = output.duration(each.pending_since, datetime.now(UTC))
        listing.row(name, count, f"{ago} ago" if ago else "")
    listing.show(none="")


def _show_events(events: Sequence[EventView]) -> None:
    listing = output.Listing(
        *("event", "time", "partition", "from", "extra"), elastic=["from", "extra"], times=["time"]
    )
    for each in events:
        by = each.source if each.dag_id is None else f"{each.dag_id}.{each.task_id}"
        time = output.brief(each.time)
        note = each.held or output.compact(each.extra)
        listing.row(each.event_id, time, each.partition, by, note)
    listing.show(none="")


async def emit_event(
    dataset: str,
    /,
    *,
    extra: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name=["--set", "-s"])] = (),
    partition: str | None = None,
    time: Moment = None,
    id: str | None = None,
    target: Target = DEFAULT,
) -> None:
    """Emit an event of a dataset, and print its id when it is stored.

    Args:
        dataset: URI of the dataset.
        extra: Extra data of the event, as a JSON object.
        set_: One value of the extra data, as name=value; the value is JSON, or else text. May be
            repeated.
        partition: Key of the dataset's partition.
        time: Time of the event; now if left out.
        id: Idempotency id: another event with the same id is a duplicate.
        target: The daemon, and the format of the output.
    """
    event: dict[str, Any] = {"dataset": dataset, "extra": pairs(extra, set_, "set")}
    given = {"partition": partition, "time": moment(time), "id": id}
    event.update((name, value) for name, value in given.items() if value is not None)
    async with target.client() as client:
        posted = await client.emit([event])
    note = " (duplicate)" if posted.duplicates else ""
    output.show_result(posted, posted.ids[0] + note, json=target.json)


async def list_events(
    dataset: str | None = None,
    /,
    *,
    outcomes: Annotated[bool, Parameter(name="--fate")] = False,
    event: str | None = None,
    partition: str | None = None,
    since: Moment = None,
    until: Moment = None,
    limit: Limit = 20,
    target: Target = DEFAULT,
) -> None:
    """List dataset events, the newest first.

    Args:
        dataset: Only events of this URI.
        outcomes: Show what became of each event in every DAG that subscribes to it.
        event: Only the event of this id, with its outcomes.
        partition: Only events of this partition of the dataset.
        since: Only events that came at this moment or later: 2026-11-20, 2026-11-20T16:00, or -2h.
        until: Only events that came before this moment.
        limit: How many events at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        if event:
            _show_outcomes(await client.event_outcomes(event), json=target.json)
            return
        chosen: dict[str, Any] = {
            "dataset": dataset,
            "partition": partition,
            "since": moment(since),
            "until": moment(until),
        }
        if outcomes:
            followed = client.events_with_outcomes(**chosen, limit=limit)
            await _show_outcomes_of(followed, json=target.json)
            return
        found = client.events(**chosen, limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("event", "time", "dataset", "from", "extra"),
            narrow=3,
            elastic=["dataset", "from", "extra"],
            times=["time"],
        )
        async for each in found:
            by = each.source if each.dag_id is None else f"{each.dag_id}.{each.task_id}"
            time = output.brief(each.time)
            note = each.held or output.compact(each.extra)
            listing.row(each.event_id, time, each.dataset, by, note)
    listing.show(none="no events")


def _show_outcomes(event: "EventWithOutcomes", *, json: bool) -> None:
    if json:
        output.show_list([event])
    else:
        output.show(_outcome_tree(event))


async def _show_outcomes_of(found: "AsyncIterator[EventWithOutcomes]", *, json: bool) -> None:
    if json:
        await output.show_items(found)
        return
    known = False
    async for event in found:
        known = True
        output.show(_outcome_tree(event))
    if not known:
        output.show("no events")


def _outcome_tree(event: "EventWithOutcomes") -> Tree:
    tree = Tree(_event_line(event))
    for outcome in event.outcomes:
        tree.add(_outcome_line(outcome))
    if not event.outcomes:
        tree.add(Text("no DAG subscribes to it", "dim"))
    return tree


def _event_line(event: "EventWithOutcomes") -> Text:
    by = event.source if event.dag_id is None else f"{event.dag_id}.{event.task_id}"
    extra = output.compact(event.extra)
    return Text.assemble(
        (event.dataset, "cyan"),
        f" {event.event_id}",
        f" partition {event.partition}" if event.partition else "",
        f" {extra}" if extra else "",
        (f"  {terminal_safe_line(event.held)}", "bold yellow") if event.held else "",
        (f"  {output.moment(event.time)}  by {by}", "dim"),
    )


def _outcome_line(outcome: "EventOutcomeView") -> Text:
    parts: list[str | Text | tuple[str, str]] = [(outcome.dag_id, "bold"), " ", _outcome(outcome)]
    if outcome.run_id is not None:
        parts += [f" by run {outcome.run_id} ", output.state(outcome.run_state or "")]
    if outcome.partition:
        parts.append(f" in partition {outcome.partition}")
    if outcome.reason:
        parts.append(f": {outcome.reason}")
    if outcome.at is not None:
        parts.append((f"  {output.moment(outcome.at)}", "dim"))
    return Text.assemble(*parts)


def _outcome(outcome: "EventOutcomeView") -> Text:
    return Text(outcome.outcome, style=_STYLES.get(outcome.outcome, ""))
