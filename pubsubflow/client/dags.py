"""Client methods for DAGs."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pubsubflow.client.transport import Transport, if_match, page_size, quoted, remaining
from pubsubflow.model.api.resources import DagDetail, DagPage, Page, Reload, StartedRun
from pubsubflow.model.api.state import StateView
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    from pubsubflow.model.api import explain as explanations
    from pubsubflow.model.api.overviews import runs as overviews
    from pubsubflow.model.schedule import simulations
else:
    explanations = lazy_module("pubsubflow.model.api.explain")
    overviews = lazy_module("pubsubflow.model.api.overviews.runs")
    simulations = lazy_module("pubsubflow.model.schedule.simulations")


class DagApi:
    """Methods of the client for DAGs."""

    _server: Transport

    async def dags(
        self,
        *,
        tags: Sequence[str] = (),
        owner: str | None = None,
        paused: bool | None = None,
        checks: bool = False,
        text: str | None = None,
        recent: int = 0,
        limit: int | None = None,
    ) -> DagPage:
        """Return DAGs by name, and the files that cannot be imported.

        Args:
            tags: Only those that have all of these tags.
            owner: Only those of this owner.
            paused: Only those that are paused, or that are not; None for both.
            checks: The DAGs that checks are, in place of all others.
            text: Only those with this in their name, in any case.
            recent: How many of its last runs to return with each.
            limit: Number of DAGs at most; None for all.
        """
        chosen: dict[str, Any] = {"tag": list(tags) or None, "owner": owner, "paused": paused}
        chosen["text"] = text
        if checks:
            chosen["checks"] = True
        if recent:
            chosen["recent"] = recent
        first = await self._server.get(
            "/api/v1/dags", DagPage, {**chosen, "limit": page_size(limit)}
        )
        items = first.items
        if first.next is not None:
            params, left = {**chosen, "after": first.next}, remaining(limit, first)
            rest = self._server.list("/api/v1/dags", DagPage, params, left)
            items = [*items, *[dag async for dag in rest]]
        return DagPage(items, None, first.import_errors)

    async def simulate(
        self,
        dag_id: str | None = None,
        *,
        schedule: str | None = None,
        events: Sequence[Mapping[str, Any]] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        lasts_seconds: float = 0.0,
    ) -> "simulations.SimulationView":
        """Return which runs a schedule would start for given events; nothing is started.

        Args:
            dag_id: The DAG whose schedule and params are taken.
            schedule: In place of its schedule, or without a DAG: one as Python.
            events: Each with `dataset` and `time`, and perhaps `partition` and `extra`.
            since: Where time begins; an hour before the first event if left out.
            until: Where it ends; a day after the last event if left out.
            lasts_seconds: How long each run is active.
        """
        body = {
            "dag": dag_id,
            "schedule": schedule,
            "events": list(events),
            "from": since,
            "to": until,
            "lasts_seconds": lasts_seconds,
        }
        path = "/api/v1/schedules/simulate"
        return await self._server.send(
            "POST", path, body, simulations.SimulationView, idempotent=True
        )

    async def dag(self, dag_id: str) -> DagDetail:
        """Return a DAG."""
        return await self._server.get(f"/api/v1/dags/{quoted(dag_id)}", DagDetail)

    async def grid(
        self, dag_id: str, *, runs: int = 50, after: str | None = None
    ) -> "overviews.RunsGrid":
        """Return the states of the tasks of a DAG's last runs, packed.

        Args:
            dag_id: The DAG.
            runs: How many runs at most, from the newest one on.
            after: The `next` of the grid of newer runs.
        """
        path = f"/api/v1/dags/{quoted(dag_id)}/grid"
        return await self._server.get(path, overviews.RunsGrid, {"runs": runs, "after": after})

    async def schedule(self, dag_id: str, *, count: int = 20) -> "overviews.ScheduleView":
        """Return the next ticks of a DAG, and the runs of the last ones.

        Args:
            dag_id: The DAG.
            count: How many of each at most.
        """
        path = f"/api/v1/dags/{quoted(dag_id)}/schedule"
        return await self._server.get(path, overviews.ScheduleView, {"count": count})

    def state(
        self, dag_id: str, *, name: str | None = None, limit: int | None = None
    ) -> AsyncIterator[StateView]:
        """Yield the values that a DAG keeps from run to run, by name."""
        params = {} if name is None else {"name": name}
        return self._server.list(_state(dag_id), Page[StateView], params, limit)

    async def set_state(self, dag_id: str, name: str, value: Any) -> StateView:
        """Set a value of a DAG's state; return it."""
        body = {"name": name, "value": value}
        return await self._server.send("PUT", _state(dag_id), body, StateView)

    async def reset_state(self, dag_id: str, name: str) -> None:
        """Reset a value of a DAG's state."""
        await self._server.delete(f"{_state(dag_id)}?name={quoted(name)}")

    async def reload_dags(self) -> Reload:
        """Have all DAG files imported again; DAGs change when that is done."""
        return await self._server.send("POST", "/api/v1/dags/reload", {}, Reload, idempotent=True)

    async def set_paused(
        self, dag_id: str, *, paused: bool, revision: str | None = None
    ) -> DagDetail:
        """Pause or unpause a DAG; return it.

        Args:
            dag_id: The DAG.
            paused: Whether its schedule starts no runs.
            revision: Only if its revision is still this one; RequestFailed (412) if not.
        """
        path = f"/api/v1/dags/{quoted(dag_id)}"
        headers = if_match(revision)
        return await self._server.send(
            "PATCH",
            path,
            {"paused": paused},
            DagDetail,
            headers=headers,
            idempotent=revision is None,
        )

    async def trigger(
        self,
        dag_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        logical_time: datetime | None = None,
        partition: str | None = None,
        run_key: str | None = None,
        cause: str | None = None,
        preset: str | None = None,
        tags: Sequence[str] = (),
    ) -> str:
        """Start a run and return its id.

        Args:
            dag_id: The DAG.
            params: Values in place of the DAG's defaults.
            logical_time: The moment that the run is about; with a zone.
            partition: The partition that it is about.
            run_key: A second request with the same key returns the same run.
            cause: Why it is requested: one line for people.
            preset: Name of a preset of the DAG: its params, with `params` laid over them.
            tags: Tags of the run.
        """
        body: dict[str, Any] = {
            "params": params,
            "logical_time": logical_time,
            "partition": partition,
            # Drawn here: a retry after a lost response returns the run of the first attempt.
            "run_key": run_key or f"manual:{uuid.uuid4()}",
            "cause": cause or "requested through the API",
        }
        # Servers of before refuse fields that they do not know.
        body |= {"preset": preset} if preset is not None else {}
        body |= {"tags": list(tags)} if tags else {}
        path = f"/api/v1/dags/{quoted(dag_id)}/runs"
        started = await self._server.send("POST", path, body, StartedRun, idempotent=True)
        return started.run_id

    async def params_schema(self, dag_id: str) -> dict[str, Any]:
        """Return the JSON Schema of a DAG's params, with defaults and descriptions."""
        path = f"/api/v1/dags/{quoted(dag_id)}/params"
        return await self._server.get(path, dict[str, Any])

    async def why_not(self, dag_id: str, *, partition: str | None = None) -> "explanations.WhyNot":
        """Return why no run of a DAG starts now: its pending events and what is missing."""
        path = f"/api/v1/dags/{quoted(dag_id)}/why-not"
        return await self._server.get(path, explanations.WhyNot, {"partition": partition})


def _state(dag_id: str) -> str:
    return f"/api/v1/dags/{quoted(dag_id)}/state"
