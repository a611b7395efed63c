"""Triggers that watch a running Airflow: events of its assets, and runs of its DAGs that end.

A look begins some minutes before the last event, as one that is older may have been
committed later. What is found twice has the same id, and is one event here.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec

from pubsubflow.airflow.observe.api import OURS, THEIRS, AirflowApi
from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.hooks.http import HttpFailed
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent

_LATE = timedelta(minutes=5)
_REFUSED = (400, 403, 422)
_LONGEST_PAUSE_SECONDS = 60.0


class _AirflowWatch(Trigger, frozen=True, kw_only=True):
    """The fields that watches of an Airflow share.

    Attributes:
        connection: Name of the connection of its API server.
        since: What happened then or later counts; from the first start of the watch if left out.
        interval: Time between two looks; at least 0.1 s.
    """

    connection: str = "airflow"
    since: datetime | None = None
    interval: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid field."""
        if self.interval < timedelta(seconds=0.1):
            raise DefinitionError(f"interval must be at least 0.1 s, not {self.interval}")
        if self.since is not None and self.since.tzinfo is None:
            raise DefinitionError(f"since needs a time zone: {self.since} has none")

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Look without end, and yield events in their order.

        Raises:
            TriggerError: The connection is unknown, or Airflow refuses the request for good.
        """
        first = since = self.since or ctx.started_at
        if ctx.position is not None:
            began, last = map(datetime.fromisoformat, ctx.position)
            first = self.since or began
            since = max(first, last - _LATE)
        seen: dict[str, datetime] = {}
        pause = self.interval.total_seconds()
        while True:
            try:
                async with AirflowApi(await ctx.connection(self.connection)) as api:
                    found = await self._look(api, since)
            except HttpFailed as error:
                if error.status in _REFUSED:
                    raise TriggerError(f"Airflow refuses to be watched: {error}") from error
                pause = await _failed(ctx, error, pause)
                continue
            except (aiohttp.ClientError, OSError) as error:
                pause = await _failed(ctx, error, pause)
                continue
            pause = self.interval.total_seconds()
            ctx.trouble(None if found is not None else self._missing())
            for event in found or ():
                if event.id is None or event.time is None or event.id in seen:
                    continue
                seen[event.id] = event.time
                since = max(since, event.time - _LATE)
                position = [first.isoformat(), max(seen.values()).isoformat()]
                yield msgspec.structs.replace(event, position=position)
            seen = {name: moment for name, moment in seen.items() if moment >= since}
            await ctx.sleep(pause)

    async def _look(self, api: AirflowApi, since: datetime) -> list[TriggerEvent] | None:
        """Return what has happened from a moment on; None if there is nothing to look at yet."""
        raise NotImplementedError

    def _missing(self) -> str:
        """Return what there is not yet, for people."""
        raise NotImplementedError


class AirflowAssetEvents(_AirflowWatch, frozen=True, kw_only=True):
    """Fires with each event of an asset in a running Airflow 3.

    Events that `PostAssetEvents` has posted there are left out. The payload is the event's `extra`,
    as Airflow shows it, and under `airflow` where the event comes from.

    Attributes:
        asset: Its URI, or its name if it has none.
    """

    asset: str

    async def _look(self, api: AirflowApi, since: datetime) -> list[TriggerEvent] | None:
        number = await api.asset_id(self.asset)
        if number is None:
            return None
        found = await api.asset_events(number, since)
        return [_asset_event(each) for each in found if OURS not in (each["extra"] or {})]

    def _missing(self) -> str:
        return f"Airflow has no asset {self.asset!r}: it appears with the first DAG that names it"


class AirflowRuns(_AirflowWatch, frozen=True, kw_only=True):
    """Fires with each run of a DAG in a running Airflow 3 that ends.

    The payload is the run as Airflow's API has it. A run that is cleared, and ends again, is
    another event.

    Attributes:
        dag_id: The DAG.
        states: The end states that count: `success`, `failed`.
    """

    dag_id: str
    states: tuple[str, ...] = ("success",)

    async def _look(self, api: AirflowApi, since: datetime) -> list[TriggerEvent] | None:
        try:
            runs = await api.ended_runs(self.dag_id, since)
        except HttpFailed as error:
            if error.status == 404:  # noqa: PLR2004 - Not Found
                return None
            raise
        return [_run_event(each) for each in runs if each["state"] in self.states]

    def _missing(self) -> str:
        return f"Airflow has no DAG {self.dag_id!r}"


async def _failed(ctx: TriggerContext, error: Exception, pause: float) -> float:
    """Say why Airflow cannot be seen, wait, and return how long to wait the next time."""
    ctx.trouble(f"Airflow: {str(error) or type(error).__name__}")
    await ctx.sleep(pause)
    return min(2 * pause, max(_LONGEST_PAUSE_SECONDS, pause))


def _asset_event(found: dict[str, Any]) -> TriggerEvent:
    moment = _moment(found["timestamp"])
    source = {
        "event_id": found["id"],
        "dag_id": found["source_dag_id"],
        "task_id": found["source_task_id"],
        "run_id": found["source_run_id"],
        "map_index": found["source_map_index"],
    }
    return TriggerEvent(
        payload={**(found["extra"] or {}), THEIRS: source},
        # With the time: a metadata database that is made anew counts from 1 again.
        id=f"{found['id']}@{moment.isoformat()}",
        partition=found.get("partition_key"),
        time=moment,
    )


def _run_event(found: dict[str, Any]) -> TriggerEvent:
    moment = _moment(found["end_date"])
    return TriggerEvent(
        payload=found,
        id=f"{found['dag_run_id']}@{moment.isoformat()}",
        time=moment,
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
