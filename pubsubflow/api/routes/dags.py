"""DAGs: listed, shown, paused, started."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import tagged, wanted
from pubsubflow.api.http.pagination import opened, sealed
from pubsubflow.api.http.requests import NoQuery, PageQuery, body, check_numbers, decode, query, utc
from pubsubflow.api.http.responses import answer
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.model.api.explain import WhyNot
from pubsubflow.model.api.resources import DagDetail, DagPage, StartedRun
from pubsubflow.model.wire.commands import Calls, SetPaused, StartRun
from pubsubflow.store.read.read_models import Reading

Text = Annotated[str, Meta(min_length=1, max_length=512)]


class AskedRun(Struct, frozen=True, forbid_unknown_fields=True):
    """A request for a run.

    Attributes:
        params: Values in place of the DAG's defaults.
        logical_time: The moment that the run is about, with a zone.
        partition: The partition that it is about.
        run_key: Asking again under the same key gives the same run.
        cause: One line for people: why it is asked for.
    """

    params: dict[str, Any] | None = None
    logical_time: Annotated[datetime, Meta(tz=True)] | None = None
    partition: Text | None = None
    run_key: Text | None = None
    cause: Text = "asked for through the API"


class WhyNotQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a question why no run starts.

    Attributes:
        partition: One partition, when the schedule is partitioned.
    """

    partition: Text | None = None


class ChangedDag(Struct, frozen=True, forbid_unknown_fields=True):
    """What can be changed about a DAG.

    Attributes:
        paused: Whether it starts no runs by itself.
    """

    paused: bool


_LIST = "dags"
_asked_run = msgspec.json.Decoder(AskedRun)
_changed_dag = msgspec.json.Decoder(ChangedDag)


class Dags:
    """Handlers of `/api/v1/dags`."""

    def __init__(self, calls: Calls, reading: Reading) -> None:
        self._calls = calls
        self._reading = reading

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        one = "/api/v1/dags/{dag_id}"
        yield routing.get(
            "/api/v1/dags", self.list_dags, query=PageQuery, answers={200: DagPage}, tagged=True
        )
        yield routing.get(one, self.show, query=NoQuery, answers={200: DagDetail}, tagged=True)
        yield routing.get(
            f"{one}/why-not",
            self.why_not,
            query=WhyNotQuery,
            answers={200: WhyNot},
            problems=(422,),
        )
        yield Route(
            method="PATCH",
            path=one,
            handler=self.change,
            access=Access.OPERATOR,
            query=NoQuery,
            body=ChangedDag,
            answers={200: DagDetail},
            matched=True,
        )
        yield routing.post(
            f"{one}/runs",
            self.start,
            access=Access.OPERATOR,
            query=NoQuery,
            body=AskedRun,
            body_needed=False,
            answers={201: StartedRun},
        )

    async def list_dags(self, request: web.Request) -> web.Response:
        """List DAGs by name, with the files that cannot be imported."""
        asked = query(request, PageQuery)
        after = opened(_LIST, asked.after, str)
        page = await self._reading.dags.page(limit=asked.limit, after=after)
        return tagged(request, sealed(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show all about a DAG."""
        query(request, NoQuery)
        found = await self._reading.dags.get(request.match_info["dag_id"])
        return tagged(request, found, revision=found.revision)

    async def why_not(self, request: web.Request) -> web.Response:
        """Show what a DAG still waits for, of the whole or of one partition."""
        asked = query(request, WhyNotQuery)
        dag_id = request.match_info["dag_id"]
        return answer(await self._reading.waiting.why_not(dag_id, asked.partition))

    async def change(self, request: web.Request) -> web.Response:
        """Pause or unpause a DAG; answer with what it is now."""
        dag_id = request.match_info["dag_id"]
        query(request, NoQuery)
        change = await body(request, _changed_dag)
        await self._calls.call(SetPaused(dag_id, change.paused, wanted(request)))
        return answer(await self._reading.dags.get(dag_id))

    async def start(self, request: web.Request) -> web.Response:
        """Start a run; answer with its id once it is durable."""
        query(request, NoQuery)
        asked = decode(await request.read() or b"{}", _asked_run)
        check_numbers([asked.params])
        run_id = await self._calls.call(
            StartRun(
                request.match_info["dag_id"],
                asked.params,
                utc(asked.logical_time, field="logical_time"),
                asked.run_key,
                asked.cause,
                asked.partition,
            )
        )
        response = answer(StartedRun(run_id=run_id), status=201)
        response.headers["Location"] = f"/api/v1/runs/{run_id}"
        return response
