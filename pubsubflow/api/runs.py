"""Runs: listed, shown, explained, waited for, cancelled."""

from collections.abc import Iterable
from typing import Annotated
from uuid import UUID

import anyio
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api import routing
from pubsubflow.api.answers import answer
from pubsubflow.api.bells import Bells
from pubsubflow.api.problems import BadRequest
from pubsubflow.api.questions import Limit, NoQuery, decode, query, run_id
from pubsubflow.api.routing import Access, Route
from pubsubflow.errors import InvalidInput
from pubsubflow.model.calls import Calls, CancelRun
from pubsubflow.model.states import RunState
from pubsubflow.store.reading import Reading

_SWEEP_SECONDS = 5.0


class RunsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of runs."""

    dag: str | None = None
    state: RunState | None = None
    limit: Limit = 50
    after: UUID | None = None


class WaitQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a wait, in seconds."""

    timeout: Annotated[float, Meta(ge=0, le=300)] = 30.0


class Cancellation(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a run is cancelled."""

    reason: Annotated[str, Meta(min_length=1, max_length=512)] = "cancelled through the API"


_cancellation = msgspec.json.Decoder(Cancellation)


class Runs:
    """Handlers of `/api/v1/runs`."""

    def __init__(self, calls: Calls, reading: Reading, bells: Bells) -> None:
        self._calls = calls
        self._reading = reading
        self._bells = bells

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.get("/api/v1/runs", self.list_runs)
        yield routing.get("/api/v1/runs/{run_id}", self.show)
        yield routing.get("/api/v1/runs/{run_id}/explain", self.explain)
        yield routing.get("/api/v1/runs/{run_id}/wait", self.wait, allow_head=False)
        yield routing.post("/api/v1/runs/{run_id}/cancel", self.cancel, access=Access.OPERATOR)

    async def list_runs(self, request: web.Request) -> web.Response:
        """List runs, the newest first."""
        asked = query(request, RunsQuery)
        return answer(
            await self._reading.runs.page(
                limit=asked.limit, dag_id=asked.dag, state=asked.state, after=asked.after
            )
        )

    async def show(self, request: web.Request) -> web.Response:
        """Show a run."""
        query(request, NoQuery)
        return answer(await self._reading.runs.get(run_id(request)))

    async def explain(self, request: web.Request) -> web.Response:
        """Show why a run exists, back to the origin."""
        query(request, NoQuery)
        return answer(await self._reading.runs.explain(run_id(request)))

    async def wait(self, request: web.Request) -> web.Response:
        """Answer with the run when it has ended, or as it is when the time is over."""
        key, asked = run_id(request), query(request, WaitQuery)
        give_up = anyio.current_time() + asked.timeout
        async with self._bells.on(f"psf.evt.run.{key}") as bell:
            while True:
                run = await self._reading.runs.get(key)
                left = give_up - anyio.current_time()
                if RunState(run.state).final or left <= 0 or self._bells.stopping:
                    return answer(run)
                await bell.wait(min(left, _SWEEP_SECONDS))

    async def cancel(self, request: web.Request) -> web.Response:
        """End a run and stop its tasks; answer with what it is now."""
        key = run_id(request)
        asked = decode(await request.read() or b"{}", _cancellation)
        try:
            await self._calls.call(CancelRun(key, asked.reason))
        except InvalidInput as error:
            raise BadRequest(str(error), status=409) from error
        return answer(await self._reading.runs.get(key))
