"""Run triggers: wait for the end of a run, or for the next run of a DAG that ends."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from pubsubflow.cli.target import Target
from pubsubflow.client import Client, RequestFailed, RequestRefused
from pubsubflow.errors import ConfigError, DefinitionError, TriggerError, Unavailable
from pubsubflow.model.api.resources import RunView
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_filled, check_interval
from pubsubflow_triggers.credentials import resolve

_END_STATES = tuple(state.value for state in RunState if state.final)
_ERRORS = (RequestFailed, Unavailable)
_WAIT_SECONDS = 30.0
# A run may be committed so much later than a newer one.
_LATE = timedelta(minutes=1)


class RunEnds(Trigger, frozen=True, kw_only=True):
    """Fires when a run ends; at once if it has ended.

    Attributes:
        run_id: The run.
        states: The accepted end states: `success`, `failed`, `cancelled`; with another one the wait
            fails.
        server: URL of the run's daemon. If left out, the daemon is found as by the command line:
            `home`, $PUBSUBFLOW_SERVER, $PUBSUBFLOW_HOME, ~/.pubsubflow.
        home: That daemon's home folder.
        token: A bearer token, `env:NAME` or `connection:NAME`.

    The payload is the API's JSON of the run; the id is the run's.
    """

    run_id: str
    states: tuple[str, ...] = _END_STATES
    server: str | None = None
    home: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        """Raise DefinitionError for states that are not final."""
        check_filled("RunEnds", "run_id", self.run_id)
        _check_states("RunEnds", self.states)

    def share_key(self) -> str:
        """Share one request among all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Poll until the run has ended, and yield it.

        Raises:
            TriggerError: The run does not exist, or it ended in another state.
        """
        backoff = Backoff(ctx, "pubsubflow")
        while True:
            try:
                async with _client_of(ctx, self) as client:
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
        states: The end states that count: `success`, `failed`, `cancelled`.
        since: Only runs that ended then or later, with a zone; the start of the wait if left out.
        longest: Longest duration of a run that ends between two polls.
        interval: Time between two polls; at least 0.1 s.
        server: URL of the DAG's daemon; found as for `RunEnds` if left out.
        home: That daemon's home folder.
        token: A bearer token, `env:NAME` or `connection:NAME`.

    The payload is the API's JSON of the run; the id is the run's.
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
        """Raise DefinitionError for an invalid field."""
        check_filled("DagRun", "dag_id", self.dag_id)
        _check_states("DagRun", self.states)
        check_interval("DagRun", self.interval)
        if self.since is not None and self.since.tzinfo is None:
            raise DefinitionError(f"DagRun: since needs a time zone: {self.since} has none")

    def share_key(self) -> str:
        """Share one poll among all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Poll without end, and yield runs in the order of their ends."""
        backoff = Backoff(ctx, "pubsubflow")
        since = self.since or ctx.started_at
        if ctx.position is not None:
            since = msgspec.convert(ctx.position, datetime) - _LATE
        runs = _RunList(self.dag_id, since - self.longest)
        while True:
            try:
                async with _client_of(ctx, self) as client:
                    ended = await runs.poll(client)
            except _ERRORS as error:
                await backoff.failed(error)
                continue
            backoff.reached()
            for run in ended:
                if run.state in self.states and (run.ended_at or since) >= since:
                    yield _event(run)
            await ctx.sleep(self.interval.total_seconds())


class _RunList:
    """The known runs of a DAG.

    Args:
        dag_id: The DAG.
        horizon: Runs created before it are not listed any more.
    """

    def __init__(self, dag_id: str, horizon: datetime) -> None:
        self._dag_id = dag_id
        self._horizon = horizon
        self._reported: set[str] = set()
        self._live: set[str] = set()

    async def poll(self, client: Client) -> list[RunView]:
        """Return runs that ended since the last poll, in the order of their ends."""
        live: set[str] = set()
        # In this order: a run that starts between the two requests is found by the second.
        for state in (RunState.QUEUED, RunState.RUNNING):
            live.update(run.run_id for run in await self._list(client, state=state.value))
        new = await self._list(client, until=self._horizon)
        gone = self._live - live - {run.run_id for run in new}
        runs = [*new, *[await client.run(run_id) for run_id in gone]]
        ended = [run for run in runs if RunState(run.state).final]
        found = [run for run in ended if run.run_id not in self._reported]
        self._reported = {run.run_id for run in ended}
        self._live = (live | {run.run_id for run in runs}) - self._reported
        if new:
            self._horizon = max(self._horizon, new[0].created_at - _LATE)
        return sorted(found, key=lambda run: (run.ended_at or run.created_at, run.run_id))

    async def _list(
        self, client: Client, *, state: str | None = None, until: datetime | None = None
    ) -> list[RunView]:
        """Return runs, the newest first: all in a state, or those created since a moment."""
        found: list[RunView] = []
        async for run in client.runs(dag_id=self._dag_id, state=state):
            if until is not None and run.created_at < until:
                break
            found.append(run)
        return found


@asynccontextmanager
async def _client_of(ctx: TriggerContext, trigger: RunEnds | DagRun) -> AsyncIterator[Client]:
    """Open a client for the daemon of a trigger.

    Raises:
        TriggerError: The daemon is unknown, or refuses the request.
        Unavailable: The daemon does not respond.
    """
    home = Path(trigger.home) if trigger.home else None
    token = await resolve(ctx, trigger.token) if trigger.token else None
    try:
        async with Target(server=trigger.server, home=home, token=token).client() as client:
            yield client
    except (ConfigError, RequestRefused) as error:
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
    if not states or not set(states) <= set(_END_STATES):
        raise DefinitionError(f"{trigger}: states must be of {', '.join(_END_STATES)}: {states!r}")
