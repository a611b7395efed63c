"""Commands about datasets and their events."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text
from rich.tree import Tree

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Moment, moment, pairs
from pubsubflow.cli.target import Asking
from pubsubflow.model.api.explain import EventFate, FateView

_DEFAULT = Asking()
_FATES = {
    "consumed": "green",
    "pending": "blue",
    "filtered": "yellow",
    "expired": "yellow",
    "skipped": "dim",
    "unseen": "dim",
    "dead": "bold red",
}


async def list_datasets(*, limit: int | None = None, asking: Asking = _DEFAULT) -> None:
    """List datasets, with their last event and the DAGs that wait for them.

    Args:
        limit: How many at most; all if left out.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = client.datasets(limit=limit)
        if asking.json:
            await output.show_items(found)
            return
        listing = output.Listing("dataset", "last event", "wakes", elastic=["wakes"])
        async for each in found:
            last = output.brief(each.last_event_at)
            listing.row(each.dataset, last, ", ".join(each.consumers))
    listing.show(none="no datasets")


async def emit_event(
    dataset: str,
    /,
    *,
    extra: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name=["--set", "-s"])] = (),
    partition: str | None = None,
    time: Moment = None,
    id: str | None = None,
    asking: Asking = _DEFAULT,
) -> None:
    """Say that a dataset has news; prints the event's id once it is durable.

    Args:
        dataset: URI of the dataset.
        extra: What to say about it, as a JSON object.
        set_: One fact about it, as name=value; the value is JSON if it can be, else text.
        partition: Which part of the dataset has news.
        time: When it happened; now if left out.
        id: Saying it again under the same id is the same event.
        asking: Which daemon to ask, and the form of the answer.
    """
    event: dict[str, Any] = {"dataset": dataset, "extra": pairs(extra, set_, "set")}
    given = {"partition": partition, "time": moment(time), "id": id}
    event.update((name, value) for name, value in given.items() if value is not None)
    async with asking.client() as client:
        posted = await client.emit([event])
    if asking.json:
        output.show_json(posted)
    else:
        known = " (known before)" if posted.duplicates else ""
        output.show(posted.ids[0] + known)


async def list_events(
    dataset: str | None = None,
    /,
    *,
    fate: bool = False,
    event: str | None = None,
    limit: int = 20,
    asking: Asking = _DEFAULT,
) -> None:
    """List dataset events, the newest first.

    Args:
        dataset: Only events of this URI.
        fate: Tell what became of each for every DAG that subscribes.
        event: Only the event of this id, with its fate.
        limit: How many at most; 20 if left out.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        if event:
            _tell_fate(await client.event_fate(event), json=asking.json)
            return
        if fate:
            fates = client.event_fates(dataset=dataset, limit=limit)
            await _tell_fates(fates, json=asking.json)
            return
        found = client.events(dataset=dataset, limit=limit)
        if asking.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("event", "time", "dataset", "from", "extra"),
            narrow=3,
            elastic=["dataset", "from", "extra"],
        )
        async for each in found:
            by = each.source if each.dag_id is None else f"{each.dag_id}.{each.task_id}"
            time = output.brief(each.time)
            listing.row(each.event_id, time, each.dataset, by, output.compact(each.extra))
    listing.show(none="no events")


def _tell_fate(event: EventFate, *, json: bool) -> None:
    if json:
        output.show_list([event])
    else:
        output.show(_fate_tree(event))


async def _tell_fates(found: AsyncIterator[EventFate], *, json: bool) -> None:
    if json:
        await output.show_items(found)
        return
    known = False
    async for event in found:
        known = True
        output.show(_fate_tree(event))
    if not known:
        output.show("no events")


def _fate_tree(event: EventFate) -> Tree:
    tree = Tree(_event_line(event), guide_style="dim")
    for fate in event.fates:
        tree.add(_fate_line(fate))
    if not event.fates:
        tree.add(Text("no DAG subscribes to it", "dim"))
    return tree


def _event_line(event: EventFate) -> Text:
    by = event.source if event.dag_id is None else f"{event.dag_id}.{event.task_id}"
    extra = output.compact(event.extra)
    return Text.assemble(
        (event.dataset, "cyan"),
        f" {event.event_id}",
        f" partition {event.partition}" if event.partition else "",
        f" {extra}" if extra else "",
        (f"  {output.moment(event.time)}  by {by}", "dim"),
    )


def _fate_line(fate: FateView) -> Text:
    said: list[str | Text | tuple[str, str]] = [(fate.dag_id, "bold"), " ", _fate(fate)]
    if fate.run_id is not None:
        said += [f" by run {fate.run_id} ", output.state(fate.run_state or "")]
    if fate.partition:
        said.append(f" in partition {fate.partition}")
    if fate.reason:
        said.append(f": {fate.reason}")
    if fate.at is not None:
        said.append((f"  {output.moment(fate.at)}", "dim"))
    return Text.assemble(*said)


def _fate(fate: FateView) -> Text:
    return Text(fate.fate, style=_FATES.get(fate.fate, ""))
