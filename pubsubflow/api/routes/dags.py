"""Routes of DAGs: list, show, pause, start a run, explain why none starts."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import execute_audited
from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import expected_revisions, json_with_etag
from pubsubflow.api.http.pagination import Cursor, read_cursor, with_cursor
from pubsubflow.api.http.requests import (
    Limit,
    NoQuery,
    decode_body,
    parse_body,
    parse_query,
    to_utc,
)
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.api.routes.runs.filters import Several, Tag
from pubsubflow.api.routes.runs.run_requests import IDEMPOTENCY, with_request_key
from pubsubflow.model.api.explain import WhyNot
from pubsubflow.model.api.resources import DagDetail, DagPage, StartedRun
from pubsubflow.model.auth import Role
from pubsubflow.model.runs.param_rules import form_schema
from pubsubflow.model.wire.commands import CommandHandler, SetPaused, StartRun
from pubsubflow.store.read.read_models import ReadModels

Text = Annotated[str, Meta(min_length=1, max_length=512)]


class RunRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to start a run.

    Attributes:
        params: Values in place of the DAG's defaults.
        logical_time: The moment that the run is about, with a zone.
        partition: The partition that it is about.
        run_key: A second request with the same key returns the same run.
        cause: Why it is requested: one line for people.
        preset: Name of a preset of the DAG: its params, with `params` laid over them.
        tags: Tags of the run.
    """

    params: dict[str, Any] | None = None
    logical_time: Annotated[datetime, Meta(tz=True)] | None = None
    partition: Text | None = None
    run_key: Text | None = None
    cause: Text = "requested through the API"
    preset: Text | None = None
    tags: Annotated[tuple[Tag, ...], Several] = ()


class DagsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of DAGs.

    Attributes:
        tag: Only DAGs that have all of these tags; repeated for several.
        owner: Only those of this owner.
        paused: Only those that are paused, or only those that are not.
        checks: The DAGs that checks are, in place of all others.
        text: Only those with this in their name, in any case.
        recent: How many of its last runs are returned with each DAG.
    """

    tag: Annotated[list[Tag], Several] = []
    owner: Text | None = None
    paused: bool | None = None
    checks: bool = False
    text: Text | None = None
    recent: Annotated[int, Meta(ge=0, le=50)] = 0
    limit: Limit = 50
    after: Cursor | None = None


class WhyNotQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of why-not.

    Attributes:
        partition: One partition, if the schedule is partitioned.
    """

    partition: Text | None = None


class DagUpdate(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to change a DAG.

    Attributes:
        paused: Whether its schedule starts no runs.
    """

    paused: bool


_LIST = "dags"
_run_decoder = msgspec.json.Decoder(RunRequest)
_update_decoder = msgspec.json.Decoder(DagUpdate)


class DagRoutes:
    """Handlers of `/api/v1/dags`."""

    def __init__(self, commands: CommandHandler, read_models: ReadModels) -> None:
        self._commands = commands
        self._read_models = read_models

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        one = "/api/v1/dags/{dag_id}"
        yield routing.get(
            "/api/v1/dags", self.list_dags, query=DagsQuery, responses={200: DagPage}, etag=True
        )
        yield routing.get(one, self.show, query=NoQuery, responses={200: DagDetail}, etag=True)
        yield routing.get(
            f"{one}/why-not",
            self.why_not,
            query=WhyNotQuery,
            responses={200: WhyNot},
            problems=(422,),
        )
        yield routing.get(
            f"{one}/params", self.params, query=NoQuery, responses={200: dict[str, Any]}, etag=True
        )
        yield Route(
            method="PATCH",
            path=one,
            handler=self.change,
            access=Access.OPERATOR,
            query=NoQuery,
            body=DagUpdate,
            responses={200: DagDetail},
            if_match=True,
        )
        yield routing.post(
            f"{one}/runs",
            self.start,
            access=Access.OPERATOR,
            query=NoQuery,
            body=RunRequest,
            body_required=False,
            responses={201: StartedRun},
            headers=IDEMPOTENCY,
            audit_in_command=True,
        )

    async def list_dags(self, request: web.Request) -> web.Response:
        """List DAGs by name, with the files that cannot be imported."""
        params = parse_query(request, DagsQuery)
        after = read_cursor(_LIST, params.after, str)
        rights = rights_of_request()
        page = await self._read_models.dags.page(
            limit=params.limit,
            after=after,
            tags=params.tag,
            owner=params.owner,
            paused=params.paused,
            checks=params.checks,
            text=params.text or "",
            recent=params.recent,
            among=None if rights is None else rights.dags_with(Role.VIEWER),
        )
        return json_with_etag(request, with_cursor(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a DAG."""
        found = await self._read_models.dags.get(request.match_info["dag_id"])
        return json_with_etag(request, found, revision=found.revision)

    async def why_not(self, request: web.Request) -> web.Response:
        """Show why no run of a DAG starts: what its schedule, or one partition, waits for."""
        params = parse_query(request, WhyNotQuery)
        dag_id = request.match_info["dag_id"]
        return json_response(await self._read_models.why_not.why_not(dag_id, params.partition))

    async def params(self, request: web.Request) -> web.Response:
        """Return the JSON Schema of a DAG's params, with defaults and descriptions, for a form."""
        found = await self._read_models.dags.get(request.match_info["dag_id"])
        return json_with_etag(request, form_schema(found.params, found.params_schema))

    async def change(self, request: web.Request) -> web.Response:
        """Pause or unpause a DAG; return it."""
        dag_id = request.match_info["dag_id"]
        change = await parse_body(request, _update_decoder)
        await self._commands.execute(SetPaused(dag_id, change.paused, expected_revisions(request)))
        return json_response(await self._read_models.dags.get(dag_id))

    async def start(self, request: web.Request) -> web.Response:
        """Start a run; return its id once it is durable."""
        payload = decode_body(await request.read() or b"{}", _run_decoder)
        command = StartRun(
            request.match_info["dag_id"],
            payload.params,
            to_utc(payload.logical_time, field="logical_time"),
            payload.run_key,
            payload.cause,
            payload.partition,
            preset=payload.preset,
            tags=payload.tags,
        )
        command = with_request_key(command, request)
        run_id = await execute_audited(request, command, self._commands)
        response = json_response(StartedRun(run_id=run_id), status=201)
        response.headers["Location"] = f"/api/v1/runs/{run_id}"
        return response
