"""Runs: listed, shown, explained, awaited and cancelled."""

from collections.abc import AsyncIterable, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from pubsubflow.cli import output
from pubsubflow.cli.commands.changes.bulk import Bulk, act_on_runs, check_single
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.run_choice import EVERY_RUN, RunChoice
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.explain import ConsumedEventView, ExplainedRun, Explanation, StartedByView
from pubsubflow.model.api.resources import CallbackView, RunDetail, RunView, TaskView
from pubsubflow.model.runs.states import RunState, TaskState

_SHOWN_FAILURES = 5
_SHOWN_HOPS = 12
_SHOWN_DEPTH = 15


async def list_runs(
    *, choice: RunChoice = EVERY_RUN, limit: Limit = 20, target: Target = DEFAULT
) -> None:
    """List runs, the newest first.

    Args:
        choice: Which runs.
        limit: How many runs at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.runs(**choice.arguments(), limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("run", "dag", "state", "created", "took", "tags", "why"),
            narrow=5,
            right=["took"],
            elastic=["dag", "tags", "why"],
            times=["created"],
        )
        async for run in found:
            listing.row(
                run.run_id,
                run.dag_id,
                output.state(run.state),
                output.brief(run.created_at),
                output.duration(run.started_at, run.ended_at),
                ", ".join(run.tags),
                run.cause,
            )
    listing.show(none="no runs")


async def show_run(run: str, /, *, target: Target = DEFAULT) -> None:
    """Show a run and its tasks.

    Args:
        run: Id of the run.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.run(run)
        if target.json:
            output.show_json(found)
            return
        output.show(_facts(found), "")
        await show_tasks(client.tasks(run))
        show_callbacks(found.callbacks)
        for line in await failures(client, found, most=None):
            output.show(Text(line, "red"))


def show_callbacks(callbacks: Sequence[CallbackView]) -> None:
    """Show calls of functions and notifiers, and what they printed; nothing if there are none."""
    if not callbacks:
        return
    listing = output.Listing(
        *("callback", "for", "attempt", "state", "tries", "ended", "error"),
        right=["attempt", "tries"],
        elastic=["error"],
        times=["ended"],
    )
    for each in callbacks:
        listing.row(
            each.name,
            each.kind,
            str(each.attempt or ""),
            output.state(each.state),
            str(each.tries),
            output.brief(each.ended_at),
            each.error,
        )
    output.show("")
    listing.show(none="no callbacks")
    for each in callbacks:
        if each.output:
            output.show(*(f"{each.name}: {line}" for line in each.output.splitlines()))


async def wait_run(
    run: str,
    /,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the flag's name
    target: Target = DEFAULT,
) -> int:
    """Wait until a run has ended, and fail if the run failed.

    Args:
        run: Id of the run.
        timeout: Seconds to wait at most; the command fails after that too.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.wait(run, timeout_seconds=timeout)
        return await report_end(client, found, json=target.json)


async def cancel_run(
    run: str | None = None,
    /,
    *,
    reason: str | None = None,
    choice: RunChoice = EVERY_RUN,
    limit: Limit = 1000,
    dry_run: bool = False,
    yes: bool = False,
    plan: Path | None = None,
    target: Target = DEFAULT,
) -> int:
    """Cancel a run and stop its tasks, or many runs by filters.

    Args:
        run: Id of the run; filters in place of it take many.
        reason: Reason, stored with the run.
        choice: Which runs.
        limit: How many runs at most by filters; 1000 if left out.
        dry_run: Only list the runs of the filters.
        yes: Do not prompt for confirmation.
        plan: File with what --dry-run --json printed: cancel exactly these runs.
        target: The daemon, and the format of the output.
    """
    text = reason or "cancelled at the command line"
    if run is None:
        bulk = Bulk(limit=limit, dry_run=dry_run, yes=yes, plan=plan)
        return await act_on_runs("cancel", choice, bulk, target, reason=text)
    check_single(choice, plan, dry_run=dry_run)
    async with target.client() as client:
        found = await client.cancel(run, reason=text)
    output.show_result(found, _end(found), json=target.json)
    return 0


async def tag_run(
    run: str, /, *tags: str, remove: tuple[str, ...] = (), target: Target = DEFAULT
) -> None:
    """Set tags of a run, and remove others.

    Args:
        run: Id of the run.
        tags: Tags to add.
        remove: Tag to remove; may be repeated.
        target: The daemon, and the format of the output.
    """
    if not (tags or remove):
        raise ConfigError("name tags to add, or --remove some")
    async with target.client() as client:
        found = await client.annotate(run, add_tags=tags, remove_tags=remove)
    text = f"{run}: {', '.join(found.tags) or 'no tags'}"
    output.show_result(found, text, json=target.json)


async def note_run(run: str, text: str, /, *, target: Target = DEFAULT) -> None:
    """Set the note of a run.

    Args:
        run: Id of the run.
        text: The note; empty to remove it.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.annotate(run, note=text)
    output.show_result(found, f"{run}: {found.note or 'no note'}", json=target.json)


async def explain_run(run: str, /, *, target: Target = DEFAULT) -> None:
    """Explain why a run exists: the events, tasks and runs that led to it, back to the origin.

    Args:
        run: Id of the run.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        explanation = await client.explain(run)
    output.show_result(explanation, _tree(explanation), json=target.json)


async def report_end(client: Client, run: RunDetail, *, json: bool) -> int:
    """Print the end of a run and its failed tasks; return the exit code: 0 for success."""
    if json:
        output.show_json(run)
    else:
        output.show(_end(run))
        for line in await failures(client, run):
            output.show(Text(line, "red"))
    return 0 if run.state == RunState.SUCCESS else 1


async def failures(
    client: Client, run: RunView, *, most: int | None = _SHOWN_FAILURES
) -> list[str]:
    """Return a line for each task that failed by its own error, and what that kept from starting.

    Args:
        client: The client.
        run: The run.
        most: How many lines at most; all if None.
    """
    found: list[str] = []
    kept: list[str] = []
    # What has failed while other tasks go on is no less a failure.
    if run.state in (RunState.QUEUED, RunState.SUCCESS):
        return found
    async for task in client.tasks(run.run_id):
        name = task.id.removeprefix(f"{run.run_id}.")
        if task.error is not None and task.state != TaskState.SKIPPED:
            found.append(f"{name}: {task.error.type}: {task.error.message}")
        elif task.state == TaskState.UPSTREAM_FAILED:
            kept.append(name)
        if len(found) == most:
            return found
    if kept:
        found.append(f"did not start, because a task before failed: {', '.join(kept)}")
    return found


def why(run: RunView) -> str:
    """Format the cause of a run, with the kind of the run."""
    return run.cause if run.cause.startswith(run.kind) else f"{run.kind}: {run.cause}"


async def show_tasks(tasks: AsyncIterable[TaskView]) -> None:
    """Print task instances."""
    listing = output.Listing(
        *("task", "state", "attempt", "took", "started", "worker", "waits for"),
        narrow=5,
        right=["attempt", "took"],
        elastic=["worker", "waits for"],
        times=["started"],
    )
    async for task in tasks:
        index = "" if task.map_index is None else f".{task.map_index}"
        name = "" if task.map_name is None else f" {task.map_name}"
        listing.row(
            task.task_id + index + name,
            output.state(task.state),
            str(task.attempt or ""),
            output.duration(task.started_at, task.ended_at),
            output.brief(task.started_at),
            task.worker,
            task.waits_for,
        )
    listing.show(none="no tasks")


def _facts(run: RunDetail) -> Table:
    return output.facts(
        [
            ("run", run.run_id),
            ("DAG", f"{run.dag_id}, version {run.version}"),
            ("state", output.state(run.state)),
            ("why", run.cause),
            ("error", run.error),
            ("cleared", f"{run.cleared} times" if run.cleared else None),
            ("params", output.compact(run.params)),
            ("logical time", output.moment(run.logical_time)),
            ("partition", run.partition),
            ("tags", ", ".join(run.tags)),
            ("note", run.note),
            ("created", output.moment(run.created_at)),
            ("took", output.duration(run.started_at, run.ended_at)),
        ]
    )


def _end(run: RunDetail) -> Text:
    took = output.duration(run.started_at, run.ended_at)
    parts: list[str | Text] = [f"{run.dag_id} {run.run_id} ", output.state(run.state)]
    if took:
        parts.append(f" after {took}")
    if run.error:
        parts.append(f": {run.error}")
    return Text.assemble(*parts)


def _tree(explanation: Explanation) -> Tree:
    """Draw the ancestry of a run; an ancestor on several paths is unfolded once."""
    steps = {step.run.run_id: step for step in explanation.runs}
    origin = steps.pop(explanation.run_id)
    tree = Tree(_run_line(origin), guide_style="dim")
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
