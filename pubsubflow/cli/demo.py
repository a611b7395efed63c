"""The command that shows a pipeline at work."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from rich.text import Text

from pubsubflow.cli import output
from pubsubflow.cli.daemon_process import hosted_daemon
from pubsubflow.cli.runs import failures
from pubsubflow.cli.target import client_on
from pubsubflow.client import Client
from pubsubflow.demo import story
from pubsubflow.errors import PubsubflowError
from pubsubflow.model.api.resources import RunView
from pubsubflow.model.runs.states import RunState

_NUMBERS_TASK = "publish"
_LOOK_SECONDS = 0.5
_GAP_SECONDS = 0.02
_PATIENCE_SECONDS = 300.0


class Told(Struct, frozen=True):
    """The demo's outcome in JSON."""

    runs: list[RunView]
    report: Any
    places: dict[str, str]


def demo(
    *,
    home: Path | None = None,
    port: int = 0,
    json: bool = False,
) -> int:
    """Run four DAGs on a year of departures from New York: one event comes in, a report comes out.

    Args:
        home: Where everything is kept; a new temporary folder if left out.
        port: TCP port of the daemon; a free one if left out.
        json: Tell the outcome in JSON.
    """
    folder = (home or Path(tempfile.mkdtemp(prefix="pubsubflow-demo-"))).expanduser().absolute()
    teller = _Teller(silent=json)
    teller.say(f"starting NATS, Postgres and pubsubflow in {folder}")
    with hosted_daemon(story.dags_folder(), home=folder, port=port) as url:
        teller.say(f"up at {url}")
        work = folder / "demo"
        work.mkdir(exist_ok=True)
        return asyncio.run(_show(folder, teller, json=json))


async def _show(folder: Path, teller: "_Teller", *, json: bool) -> int:
    """Play the story on a daemon that runs, and tell what came out."""
    work = folder / "demo"
    async with client_on(folder) as client:
        runs = await _play(client, work, teller)
        report = _report(runs)
        if report is None:
            return await _explain_failure(client, runs)
        numbers = (await client.task(report.run_id, _NUMBERS_TASK)).result
        told = Told(runs, numbers, _places(folder, work))
        if json:
            output.show_json(told)
        else:
            lines = await _lines(client, told.runs, report)
            output.show(story.narrate(lines, numbers, told.places))
    return 0


class _Teller:
    """Says what happens when, in seconds since the first line."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._begin = time.monotonic()

    def say(self, *parts: str | Text) -> None:
        """Print one line."""
        if not self._silent:
            after = (f"{time.monotonic() - self._begin:7.2f} s  ", "dim")
            output.show(Text.assemble(after, *parts))


async def _play(client: Client, work: Path, teller: _Teller) -> list[RunView]:
    """Post the event, tell what follows until nothing more does, and return the runs."""
    before = {run.run_id async for run in client.runs()}
    await client.emit([story.arrival(work)])
    teller.say("one event posted over HTTP: ", Text(story.LANDING, "cyan"))
    give_up = time.monotonic() + _PATIENCE_SECONDS
    states: dict[str, str] = {}
    while True:
        runs = [run async for run in client.runs() if run.run_id not in before]
        for run in reversed(runs):
            if states.get(run.run_id) != run.state:
                states[run.run_id] = run.state
                teller.say(*_news(run))
        live = [run for run in runs if not RunState(run.state).final]
        if not live and _told(runs):
            return runs
        if time.monotonic() > give_up:
            raise PubsubflowError(
                f"the pipeline is not done after {_PATIENCE_SECONDS:g} s: is the machine busy? "
                f"Under way: {', '.join(run.dag_id for run in live) or 'nothing'}"
            )
        if live:
            await client.wait(live[0].run_id, timeout_seconds=_LOOK_SECONDS)
        else:  # an event is on its way from one DAG to the next
            await asyncio.sleep(_GAP_SECONDS)


def _told(runs: list[RunView]) -> bool:
    """Whether the report's DAG ran, or never will because a run before it failed."""
    return any(run.dag_id == story.REPORT_DAG or run.state != RunState.SUCCESS for run in runs)


def _news(run: RunView) -> Iterator[str | Text]:
    yield f"{run.dag_id:<15} "
    yield output.state(run.state)
    if RunState(run.state).final:
        yield f" after {output.duration(run.started_at, run.ended_at)}"
    else:
        yield f"  {run.cause}"


def _report(runs: list[RunView]) -> RunView | None:
    """Return the run that wrote the report, if all went well."""
    if any(run.state != RunState.SUCCESS for run in runs):
        return None
    return next((run for run in runs if run.dag_id == story.REPORT_DAG), None)


async def _explain_failure(client: Client, runs: list[RunView]) -> int:
    failed = [run for run in runs if run.state != RunState.SUCCESS]
    for run in failed:
        for line in await failures(client, run):
            output.warn(f"{run.dag_id}: {line}")
    return 1


async def _lines(client: Client, runs: list[RunView], report: RunView) -> list[story.RunLine]:
    causes = {
        step.run.run_id: " and ".join(sorted({event.dataset for event in step.events}))
        for step in (await client.explain(report.run_id)).runs
    }
    return [
        story.RunLine(
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
        "DAGs": str(story.dags_folder()),
        "look on": f"pubsubflow up {story.dags_folder()} --home {folder}",
        "and then": f"pubsubflow runs list --home {folder}",
        "remove": f"rm -r {folder}",
    }
