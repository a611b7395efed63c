"""Routes of versions of DAGs and of graphs of runs: list, show."""

from collections.abc import Iterable
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import ALLOWED, PRINCIPAL
from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import json_with_etag
from pubsubflow.api.http.pagination import Cursor, read_cursor, with_cursor
from pubsubflow.api.http.requests import Limit, NoQuery, parse_query, run_id
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.errors import NotFound
from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.versions import RunGraph, VersionDetail, VersionFiles, VersionView
from pubsubflow.store.read.read_models import ReadModels

_LIST = "versions"
LARGEST = 2**31 - 1
"""The largest number that a version can have."""
_Number = Annotated[int, Meta(ge=1, le=LARGEST)]


class VersionsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of versions."""

    limit: Limit = 50
    after: Cursor | None = None


class FilesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the files of a version.

    Attributes:
        file: Path of the file whose text is wanted; the DAG's own if left out.
    """

    file: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None


class VersionRoutes:
    """Handlers of `/api/v1/dags/{dag_id}/versions`, and of graphs of runs."""

    def __init__(self, read_models: ReadModels) -> None:
        self._read_models = read_models

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        versions = "/api/v1/dags/{dag_id}/versions"
        yield routing.get(
            versions,
            self.list_versions,
            query=VersionsQuery,
            responses={200: Page[VersionView]},
            etag=True,
        )
        yield routing.get(
            f"{versions}/{{number}}",
            self.show,
            query=NoQuery,
            responses={200: VersionDetail},
            etag=True,
        )
        yield routing.get(
            f"{versions}/{{number}}/files",
            self.files,
            access=Access.OPERATOR,
            query=FilesQuery,
            responses={200: VersionFiles},
            etag=True,
        )
        yield routing.get(
            "/api/v1/runs/{run_id}/graph",
            self.graph,
            query=NoQuery,
            responses={200: RunGraph},
            etag=True,
        )

    async def list_versions(self, request: web.Request) -> web.Response:
        """List the versions of a DAG, the newest first, with what each changed and its runs."""
        params = parse_query(request, VersionsQuery)
        page = await self._read_models.versions.page(
            request.match_info["dag_id"],
            limit=params.limit,
            before=read_cursor(_LIST, params.after, _Number),
        )
        return json_with_etag(request, with_cursor(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a version of a DAG; the source of its file to operators and admins."""
        found = await self._read_models.versions.get(
            request.match_info["dag_id"],
            version_number(request),
            with_source=Access.OPERATOR in ALLOWED[request[PRINCIPAL].role],
        )
        return json_with_etag(request, found)

    async def files(self, request: web.Request) -> web.Response:
        """List the files of a version of a DAG, with the text of one of them."""
        found = await self._read_models.versions.files(
            request.match_info["dag_id"],
            version_number(request),
            file=parse_query(request, FilesQuery).file,
        )
        return json_with_etag(request, found)

    async def graph(self, request: web.Request) -> web.Response:
        """Show the graph of a run in its own version, with the states of its tasks."""
        return json_with_etag(request, await self._read_models.versions.run_graph(run_id(request)))


def version_number(request: web.Request) -> int:
    """Return the version's number in a path.

    Raises:
        NotFound: It is not one.
    """
    text = request.match_info["number"]
    # Numbers that no version can have are of no version.
    known = text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST))
    if not known or not 0 < int(text) <= LARGEST:
        raise NotFound("version", text)
    return int(text)
