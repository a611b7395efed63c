"""Waiting for other DAGs: for a run to end, for the next run of a DAG that ends."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from pubsubflow.cli.target import Asking
from pubsubflow.client import Client, Failed, Refused
from pubsubflow.errors import ConfigError, DefinitionError, TriggerError, Unavailable
from pubsubflow.model.api.resources import RunView
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_filled, check_interval
from pubsubflow_triggers.credentials import resolve

_ENDS = tuple(state.value for state in RunState if state.final)
_ERRORS = (Failed, Unavailable)
_WAIT_SECONDS = 30.0
_LATE = timedelta(minutes=1)  # what commits later than what is newer


class RunEnds(Trigger, frozen=True, kw_only=True):
    """Fires when a run ends; at once if it has ended.

    Attributes:
        run_id: The run.
        states: Which ends will do: `success`, `failed`, `cancelled`; with another the wait fails.
        server: URL of the daemon that has the run. If left out, the daemon is found as the command
            line finds it: `home`, $PUBSUBFLOW_SERVER, $PUBSUBFLOW_HOME, ~/.pubsubflow.
        home: That daemon's home folder.
        token: A bearer token, `env:NAME` or `connection:NAME`.

    The payload is the run as the API shows it; the id is the run's.
    """

    run_id: str
    states: tuple[str, ...] = _ENDS
    server: str | None = None
    home: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        """Raise DefinitionError for states that are no ends."""
        check_filled("RunEnds", "run_id", self.run_id)
        _check_states("RunEnds", self.states)

    def share_key(self) -> str:
        """Let one question wait for all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Ask until the run has ended, and yield it.

        Raises:
            TriggerError: There is no such run, or it came to another end.
        """
        backoff = Backoff(ctx, "pubsubflow")
        while True:
            try:
                async with _asking(ctx, self) as client:
                    run = await client.wait(self.run_id, timeout_seconds=_WAIT_SECONDS)
            except _ERRORS as error:
                await backoff.failed(error)
                continue
            backoff.reached()
            if RunState(run.state).final:
                break
        if run.state not in self.states:
            reason = f": {run.error}" if run.error else ""
            raise TriggerError(f"run {self.run_id} ended as {run.state}{reason}")
        yield TriggerEvent(payload=msgspec.to_builtins(run), id=run.run_id, time=run.ended_at)


class DagRun(Trigger, frozen=True, kw_only=True):
    """Fires with each run of a DAG that ends.

    Attributes:
        dag_id: The DAG.
        states: Which ends count: `success`, `failed`, `cancelled`.
        since: Only runs that ended then or later, with a zone; since the wait began if left out.
        longest: How long before that a run may have begun. It matters for runs that ended while
            nobody looked.
        interval: How long to wait between two looks; at least 0.1 s.
        server: URL of the daemon that has the DAG; found as `RunEnds` finds it if left out.
        home: That daemon's home folder.
        token: A bearer token, `env:NAME` or `connection:NAME`.

    The payload is the run as the API lists it; the id is the run's.
    """

    dag_id: str
    states: tuple[str, ...] = (RunState.SUCCESS.value,)
    since: datetime | None = None
    longest: timedelta = timedelta(days=1)
    interval: timedelta = timedelta(seconds=5)
    server: str | None = None
    home: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        """Raise DefinitionError for what cannot be looked for."""
        check_filled("DagRun", "dag_id", self.dag_id)
        _check_states("DagRun", self.states)
        check_interval("DagRun", self.interval)
        if self.since is not None and self.since.tzinfo is None:
            raise DefinitionError(f"DagRun: since needs a time zone: {self.since} has none")

    def share_key(self) -> str:
        """Let one look do for all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Look again and again, and yield runs in the order of their ends."""
        backoff = Backoff(ctx, "pubsubflow")
        since = self.since or ctx.started_at
        if ctx.position is not None:
            since = msgspec.convert(ctx.position, datetime) - _LATE
        watch = _Watch(self.dag_id, since - self.longest)
        while True:
            try:
                async with _asking(ctx, self) as client:
                    ended = await watch.look(client)
            except _ERRORS as error:
                await backoff.failed(error)
                continue
            backoff.reached()
            for run in ended:
                if run.state in self.states and (run.ended_at or since) >= since:
                    yield _event(run)
            await ctx.sleep(self.interval.total_seconds())


class _Watch:
    """What is known of a DAG's runs.

    Args:
        dag_id: The DAG.
        horizon: Runs that were made before are no longer looked for in the list.
    """

    def __init__(self, dag_id: str, horizon: datetime) -> None:
        self._dag_id = dag_id
        self._horizon = horizon
        self._told: set[str] = set()
        self._live: set[str] = set()

    async def look(self, client: Client) -> list[RunView]:
        """Return runs that ended since the last look, in the order of their ends."""
        live: set[str] = set()
        for state in (RunState.QUEUED, RunState.RUNNING):  # in the order in which a run goes
            live.update(run.run_id for run in await self._list(client, state=state.value))
        new = await self._list(client, until=self._horizon)
        gone = self._live - live - {run.run_id for run in new}
        runs = [*new, *[await client.run(run_id) for run_id in gone]]
        ended = [run for run in runs if RunState(run.state).final]
        found = [run for run in ended if run.run_id not in self._told]
        self._told = {run.run_id for run in ended}
        self._live = (live | {run.run_id for run in runs}) - self._told
        if new:
            self._horizon = max(self._horizon, new[0].created_at - _LATE)
        return sorted(found, key=lambda run: (run.ended_at or run.created_at, run.run_id))

    async def _list(
        self, client: Client, *, state: str | None = None, until: datetime | None = None
    ) -> list[RunView]:
        """Return runs, the newest first: all in a state, or those made not before a moment."""
        found: list[RunView] = []
        async for run in client.runs(dag_id=self._dag_id, state=state):
            if until is not None and run.created_at < until:
                break
            found.append(run)
        return found


@asynccontextmanager
async def _asking(ctx: TriggerContext, trigger: RunEnds | DagRun) -> AsyncIterator[Client]:
    """Give a client for the daemon that a trigger asks.

    Raises:
        TriggerError: The daemon does not know or accept what is asked for.
        Unavailable: It cannot answer now.
    """
    home = Path(trigger.home) if trigger.home else None
    token = await resolve(ctx, trigger.token) if trigger.token else None
    try:
        async with Asking(server=trigger.server, home=home, token=token).client() as client:
            yield client
    except (ConfigError, Refused) as error:
        raise TriggerError(str(error)) from error


def _event(run: RunView) -> TriggerEvent:
    ended = run.ended_at
    return TriggerEvent(
        payload=msgspec.to_builtins(run),
        id=run.run_id,
        partition=run.partition,
        time=ended,
        position=ended and ended.isoformat(),
    )


def _check_states(trigger: str, states: Sequence[Any]) -> None:
    if not states or not set(states) <= set(_ENDS):
        raise DefinitionError(f"{trigger}: states must be of {', '.join(_ENDS)}: {states!r}")
