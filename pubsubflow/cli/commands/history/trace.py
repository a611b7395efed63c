"""Traces of runs, tasks and events: what led to them, and what they have led to, as a tree."""

from collections.abc import Callable
from typing import Annotated

from pubsubflow.cli import output
from pubsubflow.cli.shell.parameter import Number, Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.texts import Text, Tree
from pubsubflow.model.api.history.causality import (
    CausalTrace,
    TracedEvent,
    TracedRun,
    TracedTask,
)

Hops = Annotated[int, Parameter(validator=Number(gte=0, lte=20))]
Breadth = Annotated[int, Parameter(validator=Number(gte=1, lte=200))]


async def trace_run(
    run: str,
    /,
    *,
    task: str | None = None,
    causes: Hops = 4,
    effects: Hops = 4,
    breadth: Breadth = 12,
    target: Target = DEFAULT,
) -> None:
    """Show what led to a run, and what it has led to.

    Args:
        run: Id of the run.
        task: Only effects of this task; <task>.<map index> for one instance.
        causes: How many steps back: from a run to an event, or back, is one.
        effects: How many steps on.
        breadth: How many causes, or effects, of each run and event at most.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.trace(run, task=task, causes=causes, effects=effects, breadth=breadth)
    output.show_result(found, _Drawing(found).tree(), json=target.json)


async def trace_event(
    event: str,
    /,
    *,
    causes: Hops = 4,
    effects: Hops = 4,
    breadth: Breadth = 12,
    target: Target = DEFAULT,
) -> None:
    """Show what led to a dataset event, and what it has led to.

    Args:
        event: Id of the event.
        causes: How many steps back: from a run to an event, or back, is one.
        effects: How many steps on.
        breadth: How many causes, or effects, of each run and event at most.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.event_trace(event, causes=causes, effects=effects, breadth=breadth)
    output.show_result(found, _Drawing(found).tree(), json=target.json)


class _Drawing:
    """Draws a trace from its focus: first its causes, then its effects, each node once."""

    def __init__(self, trace: CausalTrace) -> None:
        self._trace = trace
        self._runs = {each.run_id: each for each in trace.runs}
        self._events = {each.event_id: each for each in trace.events}
        self._drawn: set[str] = set()

    def tree(self) -> Tree:
        """Return the whole drawing."""
        key = self._trace.id
        focus = self._runs[key] if self._trace.kind == "run" else self._events[key]
        tree = Tree(self._line(focus, None))
        self._drawn.add(key)
        self._unfold(tree.add(Text("because of", "dim")), key, self._causes)
        self._drawn = {key}
        self._unfold(tree.add(Text("has led to", "dim")), key, self._effects)
        if self._trace.cut:
            tree.add(Text("there is more than is shown: begin further on", "yellow"))
        return tree

    def _unfold(
        self, branch: Tree, key: str, near: Callable[[str], tuple[list[str], list[Text]]]
    ) -> None:
        keys, remarks = near(key)
        for each in keys:
            node = self._runs.get(each) or self._events[each]
            if each in self._drawn:
                leaf = branch.add(self._line(node, key))
                leaf.add(Text("(see above)", "dim"))
                continue
            self._drawn.add(each)
            self._unfold(branch.add(self._line(node, key)), each, near)
        for remark in remarks:
            branch.add(remark)

    def _causes(self, key: str) -> tuple[list[str], list[Text]]:
        event, run = self._events.get(key), self._runs.get(key)
        if event is not None:
            if event.run_id in self._runs:
                return [event.run_id], []
            return [], [_origin(event)]
        if run is None:
            return [], []
        found = [link.event_id for link in self._trace.consumed if link.run_id == key]
        remarks = []
        more = run.consumed - run.consumed_pruned - len(found)
        if run.consumed_pruned:
            remarks.append(Text(f"{run.consumed_pruned} events were pruned", "yellow"))
        if more > 0:
            remarks.append(self._more(more, "event"))
        by = run.started_by
        if by is not None and by.run_id in self._runs:
            found.append(by.run_id)
        elif by is not None:
            pruned = " (pruned)" if by.pruned else ""
            remarks.append(Text(f"{run.cause}{pruned}", "dim"))
        elif not run.consumed:
            remarks.append(Text(f"the origin: {run.kind}, {run.cause}", "dim"))
        return found, remarks

    def _effects(self, key: str) -> tuple[list[str], list[Text]]:
        event, run = self._events.get(key), self._runs.get(key)
        if event is not None:
            found = [link.run_id for link in self._trace.consumed if link.event_id == key]
            more = sum(event.consumers.values()) - len(found)
            remarks = [self._more(more, "run")] if more > 0 else []
            return found, [*remarks, *_outcomes(event)]
        if run is None:
            return [], []
        emitted = [each.event_id for each in self._trace.events if each.run_id == key]
        started = [
            each.run_id
            for each in self._trace.runs
            if each.started_by is not None and each.started_by.run_id == key
        ]
        remarks = [
            self._more(more, what)
            for more, what in (
                (run.emitted - len(emitted), "event"),
                (run.started - len(started), "run"),
            )
            if more > 0
        ]
        return emitted + started, remarks

    def _more(self, count: int, what: str) -> Text:
        least = "at least " if count > self._trace.counted // 2 else ""
        return Text(f"… {least}{count} more {what}{'s' if count != 1 else ''}", "yellow")

    def _line(self, node: TracedRun | TracedEvent, beside: str | None) -> Text:
        """Return the line of a node, with the time between it and the one beside it."""
        if isinstance(node, TracedEvent):
            other = None if beside is None else self._runs.get(beside)
            return _event_line(node, other)
        event = None if beside is None else self._events.get(beside)
        return _run_line(node, event)


def _run_line(run: TracedRun, event: TracedEvent | None) -> Text:
    waited = None
    if event is not None and event.run_id != run.run_id:
        waited = output.duration(event.recorded_at, run.created_at)
    took = output.duration(run.started_at, run.ended_at)
    return Text.assemble(
        (run.dag_id, "bold"),
        f" {run.run_id} ",
        output.state(run.state),
        f" partition {run.partition}" if run.partition else "",
        (f"  {output.moment(run.created_at)}", "dim"),
        (f"  {waited} after the event" if waited else "", "dim"),
        (f"  took {took}" if took else "", "dim"),
        (f"  (cleared {run.cleared} times)" if run.cleared else "", "dim"),
        (f"  {run.error}" if run.error else "", "red"),
    )


def _event_line(event: TracedEvent, run: TracedRun | None) -> Text:
    by = _emitted_by(event.task)
    waited = None
    # The time that passed stands at the later one of the two.
    if run is not None and event.run_id != run.run_id:
        waited = output.duration(event.recorded_at, run.created_at)
    return Text.assemble(
        (event.dataset, "cyan"),
        f" {event.event_id}",
        f" partition {event.partition}" if event.partition else "",
        (f"  {output.moment(event.recorded_at)}", "dim"),
        (f"  {waited} before the run" if waited else "", "dim"),
        (f"  {by}" if by and (run is None or event.run_id == run.run_id) else "", "dim"),
        (f"  {event.held}" if event.held else "", "yellow"),
    )


def _emitted_by(task: TracedTask | None) -> str | None:
    if task is None:
        return None
    index = "" if task.map_index is None else f".{task.map_index}"
    return f"emitted by task {task.task_id}{index}"


def _origin(event: TracedEvent) -> Text:
    if event.pruned:
        return Text("emitted by a task of a run that was pruned", "yellow")
    if event.run_id is not None:
        by = _emitted_by(event.task) or "emitted by a task"
        return Text(f"{by} of {event.dag_id} {event.run_id} …", "dim")
    return Text(f"the origin: from outside ({event.source})", "dim")


def _outcomes(event: TracedEvent) -> list[Text]:
    found = []
    for other in event.outcomes:
        names = ", ".join(other.dags) + (", …" if other.count > len(other.dags) else "")
        why = f": {other.reason}" if other.reason else ""
        style = "bold red" if other.outcome == "dead" else "dim"
        found.append(Text(f"{other.outcome} for {names}{why}", style))
    return found
