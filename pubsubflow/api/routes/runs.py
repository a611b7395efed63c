"""Runs: listed, shown, explained, waited for, cancelled."""

from collections.abc import Iterable
from typing import Annotated
from uuid import UUID

import anyio
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import tagged
from pubsubflow.api.http.pagination import Cursor, opened, sealed
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, decode, query, run_id
from pubsubflow.api.http.responses import answer
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.explain import Explanation
from pubsubflow.model.api.resources import Page, RunDetail, RunView
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.wire.commands import Calls, CancelRun
from pubsubflow.store.read.read_models import Reading
from pubsubflow.wakeup import Bells

_LIST = "runs"
_SWEEP_SECONDS = 5.0


class RunsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of runs.

    Attributes:
        dag: Only runs of this DAG.
        state: Only runs in this state now.
    """

    dag: str | None = None
    state: RunState | None = None
    limit: Limit = 50
    after: Cursor | None = None


class WaitQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a wait.

    Attributes:
        timeout: Seconds to wait at most.
    """

    timeout: Annotated[float, Meta(ge=0, le=300)] = 30.0


class Cancellation(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a run is cancelled.

    Attributes:
        reason: For those who look at it later.
    """

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
        one = "/api/v1/runs/{run_id}"
        yield routing.get(
            "/api/v1/runs",
            self.list_runs,
            query=RunsQuery,
            answers={200: Page[RunView]},
            problems=(404,),
            tagged=True,
        )
        yield routing.get(one, self.show, query=NoQuery, answers={200: RunDetail}, tagged=True)
        yield routing.get(f"{one}/explain", self.explain, query=NoQuery, answers={200: Explanation})
        yield routing.get(
            f"{one}/wait",
            self.wait,
            query=WaitQuery,
            answers={200: RunDetail},
            allow_head=False,
        )
        yield routing.post(
            f"{one}/cancel",
            self.cancel,
            access=Access.OPERATOR,
            query=NoQuery,
            body=Cancellation,
            body_needed=False,
            answers={200: RunDetail},
            problems=(409,),
        )

    async def list_runs(self, request: web.Request) -> web.Response:
        """List runs, the newest first."""
        asked = query(request, RunsQuery)
        page = await self._reading.runs.page(
            limit=asked.limit,
            dag_id=asked.dag,
            state=asked.state,
            after=opened(_LIST, asked.after, UUID),
        )
        return tagged(request, sealed(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a run."""
        query(request, NoQuery)
        return tagged(request, await self._reading.runs.get(run_id(request)))

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
        key, _ = run_id(request), query(request, NoQuery)
        asked = decode(await request.read() or b"{}", _cancellation)
        try:
            await self._calls.call(CancelRun(key, asked.reason))
        except InvalidInput as error:
            raise BadRequest(str(error), status=409) from error
        return answer(await self._reading.runs.get(key))
