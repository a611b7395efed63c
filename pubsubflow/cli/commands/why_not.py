"""Explains why no run of a DAG starts: its condition, pending events and limits."""

from collections.abc import Iterator
from datetime import UTC, datetime

from pubsubflow.cli import output
from pubsubflow.cli.commands.runs import why
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.texts import Grid, Text, Tree
from pubsubflow.model.api.explain import WaitingInput, WaitingPartition, WhyNot
from pubsubflow.model.api.resources import RunView
from pubsubflow.model.schedule.explain import Clause, Reason

_SIGNS = {"all": "all of", "any": "any of"}


async def why_not(dag: str, /, *, partition: str | None = None, target: Target = DEFAULT) -> None:
    """Explain why no run of a DAG starts: what is pending, what is missing, and since when.

    Args:
        dag: Id of the DAG.
        partition: Key of one partition of a partitioned schedule.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.why_not(dag, partition=partition)
    if target.json:
        output.show_json(found)
        return
    for reason in found.reasons:
        output.show(_reason(dag, reason))
    if found.condition is not None:
        inputs = {each.place: each for each in found.inputs}
        output.show("", _tree(found.condition, inputs))
    elif found.inputs:
        output.show("")
        _list_inputs(found.inputs)
    if found.partitions:
        output.show("")
        _list_partitions(found.partitions, found.open_partitions)
    output.show("", _facts(found))


def _reason(dag: str, reason: Reason) -> Text:
    until = f", until {output.moment(reason.until)}" if reason.until is not None else ""
    return Text.assemble((f"{dag}: ", "bold"), reason.text, until)


def _tree(clause: Clause, inputs: dict[int, WaitingInput]) -> Tree:
    """Draw the condition: a mark for every side, and the pending events under each dataset."""
    tree = Tree(_line(clause, inputs))
    for side in clause.sides:
        tree.add(_tree(side, inputs))
    if clause.place is not None:
        for line in _details(inputs[clause.place]):
            tree.add(line)
    return tree


def _line(clause: Clause, inputs: dict[int, WaitingInput]) -> Text:
    mark = Text("✓ holds ", "green") if clause.holds else Text("✗ waits ", "yellow")
    name = _SIGNS.get(clause.kind, clause.text)
    if clause.kind == "or_after":
        name = f"with a deadline: {_deadline(clause)}"
    elif clause.place is not None:
        name = inputs[clause.place].dataset
    line = Text.assemble(mark, " ", name)
    if clause.kind == "tick" and clause.due is not None:
        line.append(f"  next {output.moment(clause.due)}", "dim")
    return line


def _deadline(clause: Clause) -> str:
    does = "then a run starts with the pending events"
    if clause.then == "skip":
        does = "then the pending events are skipped"
    if clause.late:
        return "it has passed"
    if clause.due is None:
        return "it starts with the first event"
    return f"it ends at {output.moment(clause.due)}, {does}"


def _details(item: WaitingInput) -> Iterator[str | Text]:
    """Yield a line for each fact about an input."""
    since = f", the oldest since {_since(item.waiting_since)}" if item.waiting_since else ""
    wanted = f" of {item.at_least}" if item.at_least > 1 else ""
    yield f"{item.pending}{wanted} pending{since}"
    if item.parts is not None:
        window = item.parts
        text = f"{window.there} of {window.wanted} parts have arrived"
        if window.there < window.wanted:
            left = window.wanted - window.there
            more = ", …" if left > len(window.missing) else ""
            text += f"; missing: {', '.join(window.missing)}{more}"
        yield text
    if not item.reachable:
        yield Text("none of its keys belongs to this partition", "yellow")
    if item.too_old:
        yield Text(f"{item.too_old} of them too old: {_age(item)} at most", "yellow")
    if item.where is not None:
        yield Text(f"only where {item.where}", "dim")
    dropped = [
        f"{count} {name}"
        for name, count in (
            ("filtered", item.filtered),
            ("expired", item.expired),
            ("skipped", item.skipped),
        )
        if count
    ]
    if dropped:
        yield Text(
            f"{', '.join(dropped)} in the last day; last reason: {item.last_reason}", "yellow"
        )
    if item.last_event_at is None:
        yield Text("no event recorded yet", "dim")
    else:
        yield Text(f"last event {_since(item.last_event_at)}: {item.last_event_id}", "dim")


def _age(item: WaitingInput) -> str:
    seconds = item.within_seconds or 0.0
    return output.duration(datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(seconds, UTC))


def _since(time: datetime | None) -> str:
    if time is None:
        return ""
    ago = output.duration(time, datetime.now(UTC))
    return f"{output.moment(time)} ({ago} ago)"


def _list_inputs(inputs: list[WaitingInput]) -> None:
    """Print the inputs of a partitioned schedule, over all partitions."""
    names = ["pending", "filtered", "expired", "skipped"]
    listing = output.Listing(
        *("input", *names, "last event"),
        narrow=2,
        right=names,
        elastic=["input"],
        times=["last event"],
    )
    for each in inputs:
        counts = (each.pending, each.filtered, each.expired, each.skipped)
        listing.row(each.dataset, *map(str, counts), output.brief(each.last_event_at))
    listing.show(none="")


def _list_partitions(partitions: list[WaitingPartition], total: int) -> None:
    listing = output.Listing(
        *("partition", "pending", "since", "waits for"),
        right=["pending"],
        elastic=["waits for"],
        times=["since"],
    )
    for each in partitions:
        since = output.brief(each.since)
        listing.row(each.partition, str(each.pending), since, each.waits_for)
    listing.show(none="")
    if total > len(partitions):
        output.show(f"… and {total - len(partitions)} more")


def _facts(found: WhyNot) -> Grid:
    behind = None
    if found.held_back:
        plural = "s" * (found.held_back > 1)
        behind = f"{found.held_back} event{plural} since {output.moment(found.held_back_since)}"
    runs = f"{found.active_runs} of {found.max_active_runs} active, {found.queued_runs} queued"
    return output.facts(
        [
            ("schedule", found.schedule),
            ("partition", found.partition),
            ("held back", behind),
            ("collecting run", found.collecting_run),
            ("next tick", output.moment(found.next_tick)),
            ("runs", runs),
            ("last run", "none yet" if found.last_run is None else _last(found.last_run)),
        ]
    )


def _last(run: RunView) -> Text:
    return Text.assemble(
        output.state(run.state),
        f" {output.moment(run.created_at)} {run.run_id}",
        (f"  {why(run)}", "dim"),
    )
