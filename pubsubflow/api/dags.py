"""DAGs: listed, shown, paused, started."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api import routing
from pubsubflow.api.answers import answer
from pubsubflow.api.questions import NoQuery, PageQuery, body, check_numbers, decode, query
from pubsubflow.api.routing import Access, Route
from pubsubflow.model.calls import Calls, SetPaused, StartRun
from pubsubflow.model.views import StartedRun
from pubsubflow.store.reading import Reading

Text = Annotated[str, Meta(min_length=1, max_length=512)]


class AskedRun(Struct, frozen=True, forbid_unknown_fields=True):
    """A request for a run; see the attributes of `StartRun`."""

    params: dict[str, Any] | None = None
    logical_time: Annotated[datetime, Meta(tz=True)] | None = None
    partition: Text | None = None
    run_key: Text | None = None
    cause: Text = "asked for through the API"


class WhyNotQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a question why no run starts."""

    partition: Text | None = None


class ChangedDag(Struct, frozen=True, forbid_unknown_fields=True):
    """What can be changed about a DAG."""

    paused: bool


_asked_run = msgspec.json.Decoder(AskedRun)
_changed_dag = msgspec.json.Decoder(ChangedDag)


class Dags:
    """Handlers of `/api/v1/dags`."""

    def __init__(self, calls: Calls, reading: Reading) -> None:
        self._calls = calls
        self._reading = reading

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.get("/api/v1/dags", self.list_dags)
        yield routing.get("/api/v1/dags/{dag_id}", self.show)
        yield routing.get("/api/v1/dags/{dag_id}/why-not", self.why_not)
        yield Route(
            method="PATCH",
            path="/api/v1/dags/{dag_id}",
            handler=self.change,
            access=Access.OPERATOR,
        )
        yield routing.post("/api/v1/dags/{dag_id}/runs", self.start, access=Access.OPERATOR)

    async def list_dags(self, request: web.Request) -> web.Response:
        """List DAGs by name, with the files that cannot be imported."""
        asked = query(request, PageQuery)
        return answer(await self._reading.dags.page(limit=asked.limit, after=asked.after))

    async def show(self, request: web.Request) -> web.Response:
        """Show all about a DAG."""
        query(request, NoQuery)
        return answer(await self._reading.dags.get(request.match_info["dag_id"]))

    async def why_not(self, request: web.Request) -> web.Response:
        """Show what a DAG still waits for, of the whole or of one partition."""
        asked = query(request, WhyNotQuery)
        dag_id = request.match_info["dag_id"]
        return answer(await self._reading.waiting.why_not(dag_id, asked.partition))

    async def change(self, request: web.Request) -> web.Response:
        """Pause or unpause a DAG; answer with what it is now."""
        dag_id = request.match_info["dag_id"]
        change = await body(request, _changed_dag)
        await self._calls.call(SetPaused(dag_id, change.paused))
        return answer(await self._reading.dags.get(dag_id))

    async def start(self, request: web.Request) -> web.Response:
        """Start a run; answer with its id once it is durable."""
        asked = decode(await request.read() or b"{}", _asked_run)
        check_numbers([asked.params])
        time = asked.logical_time
        run_id = await self._calls.call(
            StartRun(
                request.match_info["dag_id"],
                asked.params,
                None if time is None else time.astimezone(UTC),
                asked.run_key,
                asked.cause,
                asked.partition,
            )
        )
        response = answer(StartedRun(run_id=run_id), status=201)
        response.headers["Location"] = f"/api/v1/runs/{run_id}"
        return response
