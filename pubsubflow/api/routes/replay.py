"""Routes of replays: they start runs for past events."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field

from pubsubflow.api.auth.middleware import note_object
from pubsubflow.api.auth.scopes import check_dag, check_dataset
from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, parse_body, to_utc
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.api.routes.runs.backfills import check_order
from pubsubflow.api.routes.runs.plans import MOST_LISTED, Listed, planned_runs
from pubsubflow.errors import DefinitionError
from pubsubflow.model.api.explain import PlannedRuns
from pubsubflow.model.auth import Role
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.wire.commands import CommandHandler, Replay, RunPlan
from pubsubflow.store.read.read_models import ReadModels

Text = Annotated[str, Meta(min_length=1, max_length=512)]
Moment = Annotated[datetime, Meta(tz=True)]


class ReplayRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a request for a replay.

    Attributes:
        since, until: Bounds of the time at which the last event of a run was recorded; `to` is
            exclusive, now if left out.
        dataset: Only runs that consume an event of this URI.
        dry_run: Only return which runs would start.
        again: Also start runs that exist.
        dags: The DAGs that evaluate the events again; all that subscribe to `dataset` if empty.
        limit: How many runs of each DAG the answer lists at most.
    """

    since: Moment = field(name="from")
    until: Moment | None = field(name="to", default=None)
    dataset: str | None = None
    dags: tuple[Text, ...] = ()
    dry_run: bool = False
    again: bool = False
    limit: Listed = MOST_LISTED


_replay_decoder = msgspec.json.Decoder(ReplayRequest)


class ReplayRoutes:
    """Handlers of `/api/v1/datasets/replay`."""

    def __init__(self, commands: CommandHandler, read_models: ReadModels) -> None:
        self._commands = commands
        self._read_models = read_models

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.post(
            "/api/v1/datasets/replay",
            self.replay,
            access=Access.OPERATOR,
            query=NoQuery,
            body=ReplayRequest,
            responses={200: list[PlannedRuns]},
            problems=(404,),
        )

    async def replay(self, request: web.Request) -> web.Response:
        """Replay past events for DAGs; return the runs of each."""
        payload = await parse_body(request, _replay_decoder)
        since = to_utc(payload.since, field="from") or payload.since
        check_order(payload.since, payload.until)
        uri = _uri(payload.dataset)
        note_object(request, ", ".join(filter(None, (uri, *payload.dags))))
        dags, rights = list(payload.dags), rights_of_request()
        if not dags:
            if uri is None:
                raise BadRequest("name a dataset, or the DAGs to replay events for", field="dags")
            check_dataset(rights, uri)
            dags = await self._read_models.datasets.subscribed_dags(uri)
            if rights is not None:
                dags = [each for each in dags if rights.may_on_dag(Role.OPERATOR, each)]
        # All are checked before the first replay: an unknown one must not leave half of it done.
        for dag_id in dags:
            check_dag(rights, dag_id, Role.OPERATOR)
            await self._read_models.dags.check(dag_id)
        planned = []
        for dag_id in dict.fromkeys(dags):
            plan: RunPlan = await self._commands.execute(
                Replay(
                    dag_id,
                    since,
                    to_utc(payload.until, field="to"),
                    uri,
                    payload.dry_run,
                    payload.again,
                )
            )
            planned.append(
                planned_runs(
                    dag_id, plan, dry_run=payload.dry_run, limit=payload.limit, counted=False
                )
            )
        return json_response(planned)


def _uri(dataset: str | None) -> str | None:
    try:
        return None if dataset is None else normalise_uri(dataset)
    except DefinitionError as error:
        raise BadRequest(str(error), field="dataset") from error
