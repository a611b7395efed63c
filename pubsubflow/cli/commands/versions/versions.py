"""Versions of DAGs: listed, shown and compared."""

from collections.abc import Iterator
from difflib import unified_diff

from msgspec import Struct

from pubsubflow.cli import output
from pubsubflow.cli.commands.versions.tasks import show_tasks
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.texts import Text
from pubsubflow.client import Client
from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.resources import DagTaskView, DagView
from pubsubflow.model.api.version_shares import VersionRuns, VersionShare
from pubsubflow.model.api.versions import VersionDetail, VersionView

_STYLES = {"+": "green", "-": "red", "@": "cyan"}


class VersionDiff(Struct, frozen=True):
    """What differs between two versions of a DAG.

    Attributes:
        text: Of the definition and then of the file, as a unified diff; empty where nothing
            differs that is shown.
        note: What the text does not show.
    """

    dag_id: str
    before: int
    after: int
    text: str
    note: str | None = None


async def list_versions(
    dag: str,
    /,
    *,
    diff: tuple[int, int] | None = None,
    limit: Limit | None = None,
    target: Target = DEFAULT,
) -> None:
    """List the versions of a DAG, what each changed and how its runs went.

    Args:
        dag: Id of the DAG.
        diff: Numbers of two versions, to print what differs between them.
        limit: How many versions at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        if diff is not None:
            _show_diff(await _difference(client, dag, *diff), target)
            return
        found = [each async for each in client.versions(dag, limit=limit)]
    if target.json:
        output.show_list(found)
        return
    listing = output.Listing(
        *("version", "since", "runs", "success", "mean", "changes"),
        right=["version", "runs", "success", "mean"],
        elastic=["changes"],
        times=["since"],
    )
    for each in found:
        listing.row(
            f"{each.number}{_mark(each)}",
            output.brief(each.created_at),
            str(each.runs.total or ""),
            success_rate(each.runs),
            seconds(each.runs.mean_seconds),
            describe_changes(each),
        )
    listing.show(none="no versions")


async def show_version(dag: str, number: int, target: Target) -> None:
    """Show a version of a DAG: its schedule, tasks, runs and file.

    Args:
        dag: Id of the DAG.
        number: Its number.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.version(dag, number)
    if target.json:
        output.show_json(found)
        return
    location = found.file + (f":{found.line}" if found.line else "")
    output.show(
        output.facts(
            [
                ("DAG", f"{found.dag_id}, version {found.number}{_mark(found)}"),
                ("since", output.moment(found.created_at)),
                ("schedule", found.schedule or "none: runs are triggered"),
                ("changes", describe_changes(found)),
                ("runs", describe_runs(found.runs)),
                ("params", output.compact(found.params)),
                ("file", location),
                ("bundle", found.bundle if found.stored else "not stored: no run can have it"),
            ]
        )
    )
    output.show("")
    show_tasks(found.graph)
    output.show("")
    output.show(Text(found.source or f"source: {found.source_hidden}"))


def describe_version(dag: DagView) -> str:
    """Return which version of a DAG is in force, and whether its file defines another one."""
    if not dag.pinned:
        return str(dag.version)
    if dag.newest_version == dag.version:
        return f"{dag.version}, pinned"
    return (
        f"{dag.version}, pinned; its file defines {dag.newest_version}: "
        f"`pubsubflow dags promote {dag.dag_id}`"
    )


def show_shares(shares: list[VersionShare]) -> None:
    """Print the versions that share a DAG's new runs, side by side."""
    listing = output.Listing(
        *("version", "share", "since", "runs", "running", "success", "failed", "mean", "p95"),
        right=["version", "share", "runs", "running", "success", "failed", "mean", "p95"],
        times=["since"],
    )
    for each in shares:
        listing.row(
            str(each.version),
            f"{100 * each.share:.3g} %",
            output.brief(each.since),
            str(each.runs.total),
            str(each.runs.running),
            success_rate(each.runs),
            str(each.runs.failed),
            seconds(each.runs.mean_seconds),
            seconds(each.runs.p95_seconds),
        )
    listing.show(none="")


def describe_changes(version: VersionView) -> str:
    """Return what a version changed, in one line."""
    found = version.changes
    if found is None:
        return "the first" if version.number == 1 else ""
    parts = [f"+{task}" for task in found.added] + [f"-{task}" for task in found.removed]
    parts += [f"{each.task_id}: {', '.join(each.fields)}" for each in found.changed]
    parts += ["schedule"] * found.schedule + found.options
    # Nearly every version has other code: of interest where nothing else has changed.
    return "; ".join(parts) or ("code" if found.code else "nothing")


def describe_runs(runs: VersionRuns) -> str:
    """Return the numbers of a version's runs, in one line."""
    if not runs.total:
        return "none"
    parts = [f"{runs.total}"]
    if rate := success_rate(runs):
        parts.append(f"{rate} succeeded")
    parts += [f"{runs.running} running"] * bool(runs.running)
    parts += [f"{runs.failed} failed"] * bool(runs.failed)
    if runs.mean_seconds is not None:
        parts.append(f"{seconds(runs.mean_seconds)} on average")
        parts.append(f"{seconds(runs.p95_seconds)} at the 95th percentile")
    return ", ".join(parts)


def success_rate(runs: VersionRuns) -> str:
    """Return the share of the ended runs that succeeded, cancelled ones apart; empty for none."""
    ended = runs.success + runs.failed
    return f"{100 * runs.success / ended:.3g} %" if ended else ""


def seconds(value: float | None) -> str:
    """Format seconds; empty for None."""
    if value is None:
        return ""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


async def _difference(client: Client, dag: str, before: int, after: int) -> VersionDiff:
    """Return what differs between two versions."""
    if before == after:
        raise InvalidInput(f"{before} and {after} are the same version: name two")
    one, other = await client.version(dag, before), await client.version(dag, after)
    names = (f"version {before}", f"version {after}")
    lines = list(
        unified_diff(list(_definition(one)), list(_definition(other)), *names, n=2, lineterm="")
    )
    note = one.source_hidden or other.source_hidden
    if one.source is not None and other.source is not None:
        files = (f"{one.file} {names[0]}", f"{other.file} {names[1]}")
        found = list(
            unified_diff(one.source.splitlines(), other.source.splitlines(), *files, lineterm="")
        )
        lines += found
        if not found:
            note = f"{other.file} is the same: what differs is in what it imports or reads"
    elif note is not None:
        note = f"the files are not compared: {note}"
    return VersionDiff(dag, before, after, "\n".join(lines), note)


def _definition(version: VersionDetail) -> Iterator[str]:
    """Yield a version's definition as lines that can be compared."""
    yield f"schedule: {version.schedule or 'none'}"
    yield f"params: {output.compact(version.params) or '{}'}"
    yield f"max_active_runs: {version.max_active_runs}"
    for task in version.graph:
        yield f"task {task.task_id}"
        yield from (f"    {name}: {value}" for name, value in _options(task))


def _options(task: DagTaskView) -> Iterator[tuple[str, str]]:
    for name in ("operator", "kind", "role", "upstream", "trigger_rule", "retries", "mapped"):
        value = getattr(task, name)
        yield name, ", ".join(value) if isinstance(value, list) else str(value)
    for name in ("timeout_seconds", "outlets", "inlets", "queue", "resources", "doc"):
        value = getattr(task, name)
        if value:
            yield name, output.compact(value)


def _show_diff(found: VersionDiff, target: Target) -> None:
    if target.json:
        output.show_json(found)
        return
    for line in found.text.splitlines():
        output.show(Text(line, style=_STYLES.get(line[:1], "")))
    if found.note:
        output.show(Text(found.note, "dim"))
    elif not found.text:
        output.show("nothing differs")


def _mark(version: VersionView) -> str:
    return " in force" if version.in_force else ""
