"""The route that deletes a DAG which no file defines any more."""

from collections.abc import Iterable
from http import HTTPStatus
from uuid import UUID

import anyio
import structlog
from aiohttp import web
from msgspec import Struct

from pubsubflow.api.auth.middleware import PRINCIPAL
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.bus import Bus
from pubsubflow.errors import BusUnavailable, InvalidInput
from pubsubflow.model.api.versions import DagDeletion
from pubsubflow.model.wire.commands import CancelRun, CommandHandler
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.versions.deletion import DagDeletions, RunsUnderWay, StillDefined

log = structlog.get_logger(__name__)

_CANCEL_SECONDS = 10.0
_POLL_SECONDS = 0.1


class DeletionQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a deletion.

    Attributes:
        keep_history: Whether its runs and versions stay.
        cancel: Whether its runs under way are cancelled; else they are a reason not to delete it.
        dry_run: Whether to return what would be removed, and remove nothing.
    """

    keep_history: bool = False
    cancel: bool = False
    dry_run: bool = False


class DeletionRoutes:
    """The handler of `DELETE /api/v1/dags/{dag_id}`."""

    def __init__(self, deletions: DagDeletions, commands: CommandHandler, bus: Bus) -> None:
        self._deletions = deletions
        self._commands = commands
        self._bus = bus

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        yield Route(
            method="DELETE",
            path="/api/v1/dags/{dag_id}",
            handler=self.delete,
            access=Access.ADMIN,
            query=DeletionQuery,
            responses={200: DagDeletion},
            problems=(409,),
        )

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a DAG that no file defines any more; return what goes."""
        params = parse_query(request, DeletionQuery)
        dag_id = request.match_info["dag_id"]
        try:
            if params.cancel and not params.dry_run:
                await self._cancel_runs(dag_id)
            found = await self._deletions.delete(
                dag_id,
                keep_history=params.keep_history,
                dry_run=params.dry_run,
                by=request[PRINCIPAL].name,
            )
        except (StillDefined, RunsUnderWay) as error:
            raise BadRequest(str(error), status=HTTPStatus.CONFLICT) from error
        if not params.dry_run:
            self._announce()
        return json_response(found)

    async def _cancel_runs(self, dag_id: str) -> None:
        """Cancel the runs of a DAG, and wait for a while until they have ended.

        Raises:
            NotFound: The DAG is unknown.
            StillDefined: A file defines it.
            RunsUnderWay: Some still clean up what their setup tasks made.
        """
        # Not at once: what setup tasks made is cleaned up by teardown tasks of the cancelled run.
        with anyio.move_on_after(_CANCEL_SECONDS):
            while runs := await self._deletions.live_runs(dag_id):
                for run_id in runs:
                    await self._cancel(run_id)
                await anyio.sleep(_POLL_SECONDS)
            return
        raise RunsUnderWay(
            f"runs of DAG {dag_id!r} are cancelled and still clean up: delete it again in a moment"
        )

    async def _cancel(self, run_id: str) -> None:
        try:
            await self._commands.execute(CancelRun(UUID(run_id), "its DAG was deleted"))
        except InvalidInput:
            # It has ended meanwhile.
            log.debug("dags.run_ended", run_id=run_id)

    def _announce(self) -> None:
        try:
            self._bus.publish(Subjects.DAG_DELETED, b"")
            self._bus.publish(Subjects.DAGS_CHANGED, b"")
        except BusUnavailable as error:
            # The deletion is stored; retention finds it in its next pass.
            log.warning("dags.announce_failed", reason=str(error))
