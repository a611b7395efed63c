"""The demo command: runs a pipeline on a daemon of its own and prints what happens."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from pubsubflow.cli import output
from pubsubflow.cli.commands.runs import failures
from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.cli.target import client_for_home
from pubsubflow.cli.texts import Text
from pubsubflow.client import Client
from pubsubflow.demo import scenario
from pubsubflow.errors import PubsubflowError
from pubsubflow.model.api.resources import RunView
from pubsubflow.model.runs.states import RunState

_REPORT_TASK = "publish"
_WAIT_SECONDS = 0.5
_GAP_SECONDS = 0.02
_TIME_LIMIT_SECONDS = 300.0


class DemoResult(Struct, frozen=True):
    """The demo's result in JSON."""

    runs: list[RunView]
    report: Any
    places: dict[str, str]


def demo(
    *,
    home: Path | None = None,
    port: int = 0,
    json: bool = False,
) -> int:
    """Run four DAGs on a year of departures from New York, from one event to a report.

    Args:
        home: Home folder for all data; a new temporary folder if left out.
        port: TCP port of the daemon; a free one if left out.
        json: Print the result in JSON.
    """
    folder = (home or Path(tempfile.mkdtemp(prefix="pubsubflow-demo-"))).expanduser().absolute()
    progress = _Progress(silent=json)
    progress.show(f"starting NATS, Postgres and pubsubflow in {folder}")
    with child_daemon(scenario.dags_folder(), home=folder, port=port) as url:
        progress.show(f"up at {url}")
        work = folder / "demo"
        work.mkdir(exist_ok=True)
        return asyncio.run(_run(folder, progress, json=json))


async def _run(folder: Path, progress: "_Progress", *, json: bool) -> int:
    """Run the pipeline on the daemon of a home folder, and print the result."""
    work = folder / "demo"
    async with client_for_home(folder) as client:
        runs = await _follow(client, work, progress)
        report = _report(runs)
        if report is None:
            return await _show_failures(client, runs)
        content = (await client.task(report.run_id, _REPORT_TASK)).result
        result = DemoResult(runs, content, _places(folder, work))
        if json:
            output.show_json(result)
        else:
            lines = await _lines(client, runs, report)
            output.show(scenario.render_result(lines, content, result.places))
    return 0


class _Progress:
    """Prints what happens, with the seconds since the first line."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._begin = time.monotonic()

    def show(self, *parts: str | Text) -> None:
        """Print one line."""
        if not self._silent:
            after = (f"{time.monotonic() - self._begin:7.2f} s  ", "dim")
            output.show(Text.assemble(after, *parts))


async def _follow(client: Client, work: Path, progress: _Progress) -> list[RunView]:
    """Post the event, print the states of the runs that follow, and return the runs at the end."""
    # The home folder may be that of an earlier demo, whose runs are not counted.
    before = {run.run_id async for run in client.runs()}
    await client.emit([scenario.arrival(work)])
    progress.show("one event posted over HTTP: ", Text(scenario.LANDING, "cyan"))
    give_up = time.monotonic() + _TIME_LIMIT_SECONDS
    states: dict[str, str] = {}
    while True:
        runs = [run async for run in client.runs() if run.run_id not in before]
        for run in reversed(runs):
            if states.get(run.run_id) != run.state:
                states[run.run_id] = run.state
                progress.show(*_change(run))
        live = [run for run in runs if not RunState(run.state).final]
        if not live and _is_complete(runs):
            return runs
        if time.monotonic() > give_up:
            raise PubsubflowError(
                f"the demo has not finished within {_TIME_LIMIT_SECONDS:g} s; running: "
                f"{', '.join(run.dag_id for run in live) or 'no DAG'}"
            )
        if live:
            await client.wait(live[0].run_id, timeout_seconds=_WAIT_SECONDS)
        else:
            # Between two DAGs there is a moment without a run, when their event is being processed.
            await asyncio.sleep(_GAP_SECONDS)


def _is_complete(runs: list[RunView]) -> bool:
    """Whether the report's DAG has run, or never will because a run before it failed."""
    return any(run.dag_id == scenario.REPORT_DAG or run.state != RunState.SUCCESS for run in runs)


def _change(run: RunView) -> Iterator[str | Text]:
    yield f"{run.dag_id:<15} "
    yield output.state(run.state)
    if RunState(run.state).final:
        yield f" after {output.duration(run.started_at, run.ended_at)}"
    else:
        yield f"  {run.cause}"


def _report(runs: list[RunView]) -> RunView | None:
    """Return the run that wrote the report; None if a run failed."""
    if any(run.state != RunState.SUCCESS for run in runs):
        return None
    return next((run for run in runs if run.dag_id == scenario.REPORT_DAG), None)


async def _show_failures(client: Client, runs: list[RunView]) -> int:
    failed = [run for run in runs if run.state != RunState.SUCCESS]
    for run in failed:
        for line in await failures(client, run):
            output.warn(f"{run.dag_id}: {line}")
    return 1


async def _lines(client: Client, runs: list[RunView], report: RunView) -> list[scenario.RunLine]:
    causes = {
        step.run.run_id: " and ".join(sorted({event.dataset for event in step.events}))
        for step in (await client.explain(report.run_id)).runs
    }
    return [
        scenario.RunLine(
            run.dag_id,
            run.state,
            run.started_at or run.created_at,
            run.ended_at,
            causes.get(run.run_id, run.cause),
        )
        for run in runs
    ]


def _places(folder: Path, work: Path) -> dict[str, str]:
    return {
        "report": str(work / "report.md"),
        "chart": str(work / "report.svg"),
        "numbers": str(work / "report.json"),
        "DAGs": str(scenario.dags_folder()),
        "start again": f"pubsubflow up {scenario.dags_folder()} --home {folder}",
        "list runs": f"pubsubflow runs list --home {folder}",
        "remove": f"rm -r {folder}",
    }
