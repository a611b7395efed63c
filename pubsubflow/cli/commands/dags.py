"""DAGs: listed, shown, triggered and paused."""

from typing import Annotated

import msgspec

from pubsubflow.cli import output
from pubsubflow.cli.commands.runs import report_end
from pubsubflow.cli.commands.versions.tasks import show_tasks
from pubsubflow.cli.commands.versions.versions import describe_version, show_shares, show_version
from pubsubflow.cli.param_values import run_params
from pubsubflow.cli.parsers import Limit, Moment, moment
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.texts import Grid, Text
from pubsubflow.cli.waiting import wait_for_run
from pubsubflow.model.api.resources import DagDetail, DagView, StartedRun
from pubsubflow.model.runs.param_rules import form_schema

_SHOWN_APART = ("default", "title", "description", "examples")


async def list_dags(
    *,
    tag: tuple[str, ...] = (),
    owner: str | None = None,
    paused: Annotated[bool | None, Parameter(negative="--active")] = None,
    checks: Annotated[bool, Parameter(negative="")] = False,
    text: str | None = None,
    limit: Limit | None = None,
    target: Target = DEFAULT,
) -> None:
    """List DAGs and the files that cannot be imported.

    Args:
        tag: Only DAGs with this tag; of several, with all of them.
        owner: Only DAGs of this owner.
        paused: Only DAGs that are paused; --active for only those that are not.
        checks: The DAGs that checks are, in place of all others.
        text: Only DAGs with this in their name, in any case.
        limit: How many DAGs at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.dags(
            tags=tag, owner=owner, paused=paused, checks=checks, text=text, limit=limit
        )
    if target.json:
        output.show_list(found.items)
        return
    listing = output.Listing(
        *("dag", "runs", "last run", "next", "schedule", "file"),
        narrow=5,
        right=["runs"],
        elastic=["schedule", "file"],
        times=["next", "last run"],
    )
    for dag in found.items:
        following = output.brief(dag.next_tick)
        listing.row(dag.dag_id, _runs(dag), _last(dag), following, dag.schedule, dag.file)
    listing.show(none="no DAGs")
    for error in found.import_errors:
        output.show("", Text(f"{error.file} cannot be imported: {error.error}", "red"))


async def show_dag(dag: str, /, *, version: int | None = None, target: Target = DEFAULT) -> None:
    """Show a DAG: its schedule, pending events and tasks.

    Args:
        dag: Id of the DAG.
        version: Number of a version, to show that one in place of the one in force.
        target: The daemon, and the format of the output.
    """
    if version is not None:
        await show_version(dag, version, target)
        return
    async with target.client() as client:
        found = await client.dag(dag)
    if target.json:
        output.show_json(found)
        return
    output.show(_facts(found))
    if found.shares:
        output.show("")
        show_shares(found.shares)
    if found.inputs:
        output.show("")
        listing = output.Listing("input", "pending events", right=["pending events"])
        for each in found.inputs:
            listing.row(each.dataset, str(each.pending))
        listing.show(none="")
    output.show("")
    show_tasks(found.graph)


async def trigger_dag(
    dag: str,
    /,
    *,
    param: Annotated[tuple[str, ...], Parameter(alias="-p")] = (),
    params: str | None = None,
    logical_time: Moment = None,
    partition: str | None = None,
    run_key: str | None = None,
    preset: str | None = None,
    tag: tuple[str, ...] = (),
    wait: bool = False,
    target: Target = DEFAULT,
) -> int:
    """Start a run.

    Args:
        dag: Id of the DAG.
        param: A param of the run, as name=value; the value is read as the param's type, as
            JSON, or else as text. May be repeated.
        params: All of the run's params, as a JSON object.
        logical_time: Logical time of the run.
        partition: Partition of the run.
        run_key: Idempotency key: another call with the same key returns the same run.
        preset: Name of a preset of the DAG: its params, under those that are given.
        tag: Tag of the run; may be repeated.
        wait: Wait until the run has ended, and fail if the run failed.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        run_id = await client.trigger(
            dag,
            params=await run_params(client, dag, params, param),
            logical_time=moment(logical_time),
            partition=partition,
            run_key=run_key,
            cause="triggered at the command line",
            preset=preset,
            tags=tag,
        )
        if wait:
            return await report_end(client, await wait_for_run(client, run_id), json=target.json)
    output.show_result(StartedRun(run_id=run_id), run_id, json=target.json)
    return 0


async def pause_dag(dag: str, /, *, target: Target = DEFAULT) -> None:
    """Pause a DAG: its schedule starts no runs, and runs that exist go on.

    Args:
        dag: Id of the DAG.
        target: The daemon, and the format of the output.
    """
    await _set_paused(dag, target, paused=True)


async def unpause_dag(dag: str, /, *, target: Target = DEFAULT) -> None:
    """Resume a paused DAG: its schedule starts runs again.

    Args:
        dag: Id of the DAG.
        target: The daemon, and the format of the output.
    """
    await _set_paused(dag, target, paused=False)


async def reload_dags(*, target: Target = DEFAULT) -> None:
    """Import all DAG files again, whether they have changed or not.

    Args:
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.reload_dags()
    text = "the DAG files are imported again; `pubsubflow dags list` shows the outcome"
    output.show_result(found, text, json=target.json)


async def _set_paused(dag: str, target: Target, *, paused: bool) -> None:
    async with target.client() as client:
        found = await client.set_paused(dag, paused=paused)
    text = f"{dag} is {'paused' if paused else 'not paused'}"
    output.show_result(found, text, json=target.json)


def _runs(dag: DagView) -> str:
    if dag.missing_since is not None:
        return "not present"
    if dag.paused:
        return "paused"
    queued = f"+{dag.queued_runs}" if dag.queued_runs else ""
    return f"{dag.active_runs}{queued}" if dag.active_runs or queued else ""


def _last(dag: DagView) -> Text:
    if dag.last_run is None:
        return Text("")
    return Text.assemble(
        output.state(dag.last_run.state), f" {output.brief(dag.last_run.created_at)}"
    )


def _facts(dag: DagDetail) -> Grid:
    location = dag.file + (f":{dag.line}" if dag.line else "")
    error = None if dag.import_error is None else Text(dag.import_error, "red")
    return output.facts(
        [
            ("DAG", dag.dag_id if dag.present else f"{dag.dag_id} ({_absence(dag)})"),
            ("description", dag.description),
            ("schedule", dag.schedule or "none: runs are triggered"),
            ("next", output.moment(dag.next_tick)),
            ("paused", "yes" if dag.paused else None),
            ("runs", f"{dag.active_runs} running, {dag.queued_runs} queued"),
            ("last run", None if dag.last_run is None else _last_line(dag)),
            ("params", _params(dag)),
            ("presets", _presets(dag)),
            ("file", location),
            ("version", describe_version(dag)),
            ("import error", error),
            ("owner", dag.owner),
            ("tags", ", ".join(dag.tags)),
        ]
    )


def _presets(dag: DagDetail) -> str:
    return "\n".join(f"{name}: {output.compact(each)}" for name, each in dag.presets.items())


def _params(dag: DagDetail) -> str:
    """Return the params with their defaults; with a schema a line each, and what it demands."""
    if dag.params_schema is None:
        return output.compact(dag.params)
    schema = form_schema(dag.params, dag.params_schema)
    lines = []
    for name, each in schema["properties"].items():
        rules = {key: value for key, value in each.items() if key not in _SHOWN_APART}
        value = msgspec.json.encode(each["default"]).decode() if "default" in each else "(required)"
        kind = each.get("title") or each.get("description") or ""
        parts = [f"{name} = {value}", output.compact(rules) if rules else "", kind]
        lines.append("  ".join(part for part in parts if part))
    return "\n".join(lines)


def _absence(dag: DagDetail) -> str:
    if dag.missing_since is None:
        return "gone from its file"
    return f"not present since {output.moment(dag.missing_since)}: its events wait"


def _last_line(dag: DagDetail) -> Text:
    return Text.assemble(_last(dag), f" {dag.last_run.run_id}" if dag.last_run else "")
