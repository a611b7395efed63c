"""Backfills: runs of past ticks and partitions, made as there is room for them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pubsubflow.cli import output
from pubsubflow.cli.commands.replay import Since, Until, show_planned
from pubsubflow.cli.param_values import run_params
from pubsubflow.cli.parsers import Limit, moment
from pubsubflow.cli.shell.parameter import Number, Parameter
from pubsubflow.cli.status_line import StatusLine
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.texts import Grid
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.backfills import BackfillView

_STEP_SECONDS = 2.0
_WAIT_SECONDS = 60.0
MostRuns = Annotated[int, Parameter(validator=Number(gte=1, lte=1000))]


async def backfill(
    dag: str,
    /,
    *,
    since: Since = None,
    until: Until = None,
    partition: tuple[str, ...] = (),
    partitions_file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    param: Annotated[tuple[str, ...], Parameter(alias="-p")] = (),
    params: str | None = None,
    max_active_runs: MostRuns | None = None,
    newest_first: bool = False,
    only_failed: bool = False,
    again: bool = False,
    description: str | None = None,
    dry_run: bool = False,
    wait: bool = False,
    target: Target = DEFAULT,
) -> int:
    """Create the runs of past ticks, or of partitions, that do not exist yet.

    They start as there is room for them; `backfills show` prints how far it is.

    Args:
        dag: Id of the DAG.
        since: Only ticks from this moment on: 2026-11-20, 2026-11-20T16:00, or -2h.
        until: Only ticks before this moment; now if left out.
        partition: A partition key, in place of ticks; may be repeated.
        partitions_file: File with partition keys, one a line; - for stdin.
        param: A param of the runs, as name=value; the value is read as the param's type, as
            JSON, or else as text. May be repeated.
        params: All of the runs' params, as a JSON object.
        max_active_runs: How many of its runs may be active, apart from the other runs of the DAG;
            if left out, they count against the DAG's max_active_runs.
        newest_first: Begin with the latest tick, or the last partition.
        only_failed: Also create runs whose last one failed or was cancelled.
        again: Also create runs that exist.
        description: A line for people.
        dry_run: Only list the runs that would start.
        wait: Wait until all of its runs have ended, and fail if one failed.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        planned = await client.backfill(
            dag,
            since=moment(since),
            until=moment(until),
            partitions=[*partition, *_read_keys(partitions_file)],
            params=await run_params(client, dag, params, param),
            dry_run=dry_run,
            again=again,
            only_failed=only_failed,
            newest_first=newest_first,
            max_active_runs=max_active_runs,
            description=description,
        )
        if wait and planned.backfill_id is not None:
            return await _wait(client, planned.backfill_id, None, json=target.json)
    if target.json:
        output.show_json(planned)
    else:
        show_planned(planned)
    return 0


async def list_backfills(
    *,
    dag: str | None = None,
    state: tuple[Literal["running", "paused", "completed", "cancelled"], ...] = (),
    limit: Limit = 20,
    target: Target = DEFAULT,
) -> None:
    """List backfills with their progress, the newest first.

    Args:
        dag: Only those of this DAG.
        state: Only those in this state; may be repeated.
        limit: How many at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.backfills(dag_id=dag, states=state, limit=limit)
        if target.json:
            await output.show_items(found)
            return
        columns = ("planned", "left", "active", "failed", "done")
        listing = output.Listing(
            *("backfill", "DAG", "state", *columns, "by", "requested"),
            right=columns,
            times=["requested"],
        )
        async for each in found:
            listing.row(
                each.backfill_id,
                each.dag_id,
                output.state(each.state),
                str(each.planned),
                str(each.left),
                str(each.queued + each.running),
                str(each.failed),
                str(each.succeeded + each.exists),
                each.created_by,
                output.brief(each.created_at),
            )
    listing.show(none="no backfills")


async def show_backfill(backfill: str, /, *, limit: Limit = 50, target: Target = DEFAULT) -> None:
    """Show a backfill: its progress, and the runs of its plan.

    Args:
        backfill: Id of the backfill.
        limit: How many runs of the plan at most; 50 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.backfill_progress(backfill)
        if target.json:
            output.show_json(found)
            return
        output.show(_facts(found), "")
        listing = output.Listing(
            *("#", "state", "", "time" if found.partitions is None else "partition", "run"),
            right=["#"],
        )
        async for run in client.backfill_plan(backfill, limit=limit):
            listing.row(
                str(run.number),
                output.state(run.state),
                "existed" if run.exists else "",
                output.moment(run.logical_time) or run.partition,
                run.run_id,
            )
    listing.show(none="")
    if found.planned > limit:
        output.show(f"… and {found.planned - limit} more; --limit shows them")


async def wait_for_backfill(
    backfill: str,
    /,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the flag's name
    target: Target = DEFAULT,
) -> int:
    """Wait until all runs of a backfill have ended, and fail if one of them failed.

    Args:
        backfill: Id of the backfill.
        timeout: Seconds to wait at most; the command fails after that too.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        return await _wait(client, backfill, timeout, json=target.json)


async def pause_backfill(
    backfill: str, /, *, reason: str | None = None, target: Target = DEFAULT
) -> None:
    """Pause a backfill: it creates no more runs, and those that it has created go on.

    Args:
        backfill: Id of the backfill.
        reason: Reason, shown with the backfill.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.pause_backfill(backfill, reason=reason)
    output.show_result(found, _line(found), json=target.json)


async def resume_backfill(backfill: str, /, *, target: Target = DEFAULT) -> None:
    """Resume a paused backfill.

    Args:
        backfill: Id of the backfill.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.resume_backfill(backfill)
    output.show_result(found, _line(found), json=target.json)


async def cancel_backfill(
    backfill: str,
    /,
    *,
    running: bool = False,
    reason: str | None = None,
    target: Target = DEFAULT,
) -> None:
    """Cancel a backfill: it creates no more runs.

    Args:
        backfill: Id of the backfill.
        running: Also cancel the runs that it has created and that have not ended.
        reason: Reason, shown with the backfill and its cancelled runs.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.cancel_backfill(backfill, running=running, reason=reason)
    output.show_result(found, _line(found), json=target.json)


def _read_keys(file: Path | None) -> Sequence[str]:
    """Return the lines of a file that are not empty."""
    if file is None:
        return ()
    try:
        path = Path("/dev/stdin") if str(file) == "-" else file
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not a text in UTF-8: --partitions-file") from error
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not keys:
        raise ConfigError(f"{file} holds no partition key: write one a line")
    return keys


async def _wait(client: Client, backfill: str, seconds: float | None, *, json: bool) -> int:
    """Wait for a backfill, with its progress on a terminal; return the exit code."""
    give_up = None if seconds is None else time.monotonic() + seconds
    with StatusLine() as line:
        found = await client.backfill_progress(backfill)
        while not found.over and (give_up is None or time.monotonic() < give_up):
            line.show(_line(found), found.succeeded + found.failed, found.planned)
            left = _WAIT_SECONDS if give_up is None else give_up - time.monotonic()
            step = min(left, _STEP_SECONDS if line.shown else _WAIT_SECONDS)
            found = await client.wait_for_backfill(backfill, timeout_seconds=max(step, 0.0))
    output.show_result(found, _line(found), json=json)
    return 0 if found.state == "completed" and not found.failed + found.cancelled else 1


def _line(found: BackfillView) -> str:
    return f"{found.dag_id} {found.backfill_id}: {found.state}, {_progress(found)}"


def _progress(found: BackfillView) -> str:
    counts = {
        "succeeded": found.succeeded,
        "failed": found.failed,
        "cancelled": found.cancelled,
        "running": found.running,
        "queued": found.queued,
        "existed": found.exists,
        "pruned": found.pruned,
        "left": found.left,
    }
    shown = [f"{count:,} {name}" for name, count in counts.items() if count]
    return f"{found.planned:,} planned" + (f": {', '.join(shown)}" if shown else "")


def _facts(found: BackfillView) -> Grid:
    bounds = f"{output.moment(found.since)} to {output.moment(found.until)}"
    makes = {
        "missing": "runs that are missing",
        "failed": "runs that are missing or failed",
        "all": "all runs, again",
    }
    limit = "max_active_runs of the DAG"
    if found.max_active_runs is not None:
        limit = f"{found.max_active_runs}, apart from the DAG's other runs"
    return output.facts(
        [
            ("backfill", found.backfill_id),
            ("DAG", found.dag_id),
            ("state", output.state(found.state)),
            ("why", found.reason),
            ("runs", _progress(found)),
            ("times", bounds if found.partitions is None else None),
            ("partitions", None if found.partitions is None else f"{found.partitions:,}"),
            ("makes", makes.get(found.reprocess, found.reprocess)),
            ("order", "the newest first" if found.newest_first else "the oldest first"),
            ("active runs", limit),
            ("params", output.compact(found.params)),
            ("description", found.description),
            ("requested", f"{output.moment(found.created_at)} by {found.created_by}"),
            ("ended", output.moment(found.ended_at)),
        ]
    )
