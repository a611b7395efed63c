"""Routes that put versions of DAGs in force: promote, roll back."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import PRINCIPAL
from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import expected_revisions
from pubsubflow.api.http.requests import NoQuery, decode_body
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.routes.versions.versions import LARGEST
from pubsubflow.bus import Bus
from pubsubflow.errors import BusUnavailable
from pubsubflow.model.api.resources import DagDetail
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.store.versions.promotion import Promotions

log = structlog.get_logger(__name__)

_Number = Annotated[int, Meta(ge=1, le=LARGEST)]


class PromoteRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to promote a version.

    Attributes:
        version: Its number; what the DAG's file defines if left out, which is followed again.
        share: The share of new runs that it takes, above 0 and up to 1; all if left out.
    """

    version: _Number | None = None
    share: Annotated[float, Meta(gt=0, le=1)] | None = None


class RollbackRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to roll back.

    Attributes:
        to: Number of the version; if left out, a share ends, or the version before is meant.
    """

    to: _Number | None = None


_promotion = msgspec.json.Decoder(PromoteRequest)
_rollback = msgspec.json.Decoder(RollbackRequest)


class PromotionRoutes:
    """Handlers of `/api/v1/dags/{dag_id}/promote` and `/rollback`."""

    def __init__(self, promotions: Promotions, read_models: ReadModels, bus: Bus) -> None:
        self._promotions = promotions
        self._read_models = read_models
        self._bus = bus

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.post(
            "/api/v1/dags/{dag_id}/promote",
            self.promote,
            access=Access.OPERATOR,
            query=NoQuery,
            body=PromoteRequest,
            body_required=False,
            responses={200: DagDetail},
            if_match=True,
        )
        yield routing.post(
            "/api/v1/dags/{dag_id}/rollback",
            self.rollback,
            access=Access.OPERATOR,
            query=NoQuery,
            body=RollbackRequest,
            body_required=False,
            responses={200: DagDetail},
            if_match=True,
        )

    async def promote(self, request: web.Request) -> web.Response:
        """Put a version of a DAG in force, or give it a share of the new runs; return the DAG."""
        dag_id = request.match_info["dag_id"]
        payload = decode_body(await request.read() or b"{}", _promotion)
        await self._promotions.promote(
            dag_id,
            payload.version,
            payload.share,
            by=request[PRINCIPAL].name,
            revisions=expected_revisions(request),
        )
        return await self._changed(dag_id)

    async def rollback(self, request: web.Request) -> web.Response:
        """Put an earlier version in force until one is promoted, or end a share; return the DAG."""
        dag_id = request.match_info["dag_id"]
        payload = decode_body(await request.read() or b"{}", _rollback)
        await self._promotions.rollback(
            dag_id,
            payload.to,
            by=request[PRINCIPAL].name,
            revisions=expected_revisions(request),
        )
        return await self._changed(dag_id)

    async def _changed(self, dag_id: str) -> web.Response:
        """Announce a version that is in force; return its DAG."""
        try:
            self._bus.publish(Subjects.TIMERS_CHANGED, b"")
            self._bus.publish(Subjects.DAGS_CHANGED, b"")
        except BusUnavailable as error:
            # The change is stored; others find it by their sweeps.
            log.warning("versions.announce_failed", reason=str(error))
        return json_response(await self._read_models.dags.get(dag_id))
