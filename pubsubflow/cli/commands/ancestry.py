"""Explanations of runs: their ancestry, as a tree."""

from pubsubflow.cli import output
from pubsubflow.cli.commands.runs import why
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.texts import Text, Tree
from pubsubflow.model.api.explain import ConsumedEventView, ExplainedRun, Explanation, StartedByView

_SHOWN_HOPS = 12
_SHOWN_DEPTH = 15


async def explain_run(run: str, /, *, target: Target = DEFAULT) -> None:
    """Explain why a run exists: the events, tasks and runs that led to it, back to the origin.

    Args:
        run: Id of the run.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        explanation = await client.explain(run)
    output.show_result(explanation, _tree(explanation), json=target.json)


def _tree(explanation: Explanation) -> Tree:
    """Draw the ancestry of a run; an ancestor on several paths is unfolded once."""
    steps = {step.run.run_id: step for step in explanation.runs}
    origin = steps.pop(explanation.run_id)
    tree = Tree(_run_line(origin))
    _unfold(tree, origin, steps)
    dags = explanation.ancestry
    if len(dags) > 1:
        tree.add(Text(f"{len(dags)} runs led here: {_chain(dags)}", "dim"))
    for wait in explanation.waits:
        tree.add(Text(wait, "yellow"))
    if not explanation.complete:
        tree.add(Text("the ancestry is longer than what is shown", "yellow"))
    return tree


def _started_line(task: StartedByView) -> Text:
    line = f"started by task {task.task_id} of {task.dag_id} {task.run_id}"
    return Text(f"{line} (pruned)" if task.pruned else line)


def _chain(names: list[str]) -> str:
    """Format the DAGs from the origin to the run; the middle of a long chain is left out."""
    if len(names) > _SHOWN_HOPS:
        half = _SHOWN_HOPS // 2
        names = [*names[:half], "…", *names[-half:]]
    return " → ".join(names)


def _unfold(branch: Tree, step: ExplainedRun, steps: dict[str, ExplainedRun]) -> None:
    if step.started_by is not None:
        starter = steps.pop(step.started_by.run_id, None)
        leaf = branch.add(_started_line(step.started_by))
        if starter is not None and starter.depth <= _SHOWN_DEPTH:
            _unfold(leaf.add(_run_line(starter)), starter, steps)
    several = len({number for event in step.events for number in event.places}) > 1
    for event in step.events:
        leaf = branch.add(_event_line(event, several=several))
        if event.run_id is None:
            continue
        source = steps.get(event.run_id)
        if source is not None and source.depth > _SHOWN_DEPTH:
            leaf.add(Text(f"{event.dag_id} {event.run_id} … (--json lists the rest)", "dim"))
            continue
        # Popped before the descent: a later event of the same run refers to this place.
        steps.pop(event.run_id, None)
        if source is None:
            leaf.add(Text(f"{event.dag_id} {event.run_id} (see above)", "dim"))
        else:
            _unfold(leaf.add(_run_line(source)), source, steps)
    if step.pruned_events:
        branch.add(Text(f"{step.pruned_events} of its events were pruned", "yellow"))
    if step.more_events:
        branch.add(Text("… and more events", "dim"))


def _run_line(step: ExplainedRun) -> Text:
    run = step.run
    return Text.assemble(
        (run.dag_id, "bold"),
        f" {run.run_id} ",
        output.state(run.state),
        f" partition {run.partition}" if run.partition else "",
        (f"  {output.moment(run.created_at)}  {why(run)}", "dim"),
        (f"  (cleared {run.cleared} times)" if run.cleared else "", "dim"),
    )


def _event_line(event: ConsumedEventView, *, several: bool) -> Text:
    by = f"from outside ({event.source})"
    if event.pruned:
        by = "emitted by a task of a run that was pruned"
    if event.run_id is not None:
        index = "" if event.map_index is None else f".{event.map_index}"
        by = f"emitted by task {event.task_id}{index} of"
    extra = output.compact(event.extra)
    return Text.assemble(
        (event.dataset, "cyan"),
        f" {extra}" if extra else "",
        f" partition {event.partition}" if event.partition else "",
        f" for input {', '.join(str(number + 1) for number in event.places)}" if several else "",
        (f"  {output.moment(event.time)}  {by}", "dim"),
    )
