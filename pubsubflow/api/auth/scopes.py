"""Scopes say how a route is bounded for principals that have a role on some DAGs and datasets.

A route that is not named here takes a role on everything. Answers of those that are named pass
through `pubsubflow.api.http.shown`.
"""

from collections.abc import Mapping
from enum import StrEnum
from uuid import UUID

from aiohttp import web

from pubsubflow.api.http.problems import BadRequest
from pubsubflow.errors import NotFound
from pubsubflow.model.auth import Rights, Role
from pubsubflow.store.read.read_models import ReadModels

_RUN_ID_CHARACTERS = 36


class Scope(StrEnum):
    """What a route is about.

    `DAG`, `RUN`, `TASK`, `BACKFILL`: the object that the path names, whose DAG decides. `SHOWN`: a
    list, or an object of it, of which only what one may see is shown. `CHECKED`: what the body
    names, which the handler checks.
    """

    DAG = "dag"
    RUN = "run"
    TASK = "task"
    BACKFILL = "backfill"
    SHOWN = "shown"
    CHECKED = "checked"


_OF_DAG = (
    *("GET ", "PATCH ", "DELETE ", "GET /why-not", "GET /params", "POST /runs", "POST /call"),
    *("GET /versions", "GET /versions/{number}", "POST /promote", "POST /rollback"),
    *("GET /grid", "GET /schedule"),
    *("POST /backfill", "GET /state", "PUT /state", "DELETE /state"),
)
_OF_RUN = (
    *("GET ", "PATCH ", "GET /graph", "GET /explain", "GET /wait", "GET /result", "GET /tasks"),
    *("GET /trace", "GET /timeline"),
    *("GET /tasks/{task}", "GET /tasks/{task}/result", "GET /tasks/{task}/logs"),
    *("GET /tasks/{task}/logs/lines", "GET /tasks/{task}/logs/find"),
    *("POST /cancel", "POST /retry", "POST /clear", "POST /mark"),
)
_OF_TASK = ("GET ", "GET /result", "GET /logs", "GET /logs/lines", "GET /logs/find")
_OF_BACKFILL = ("GET ", "GET /plan", "GET /wait", "POST /pause", "POST /resume", "POST /cancel")
_SHOWN = (
    *("GET dags", "GET runs", "GET tasks", "GET datasets", "GET datasets/events"),
    *(
        "GET datasets/events/{event_id}/trace",
        "GET datasets/detail",
        "GET triggers",
        "GET checks",
        "GET checks/{name}",
    ),
    *("GET check-results", "GET held-events", "GET backfills", "GET dead-letters"),
    *("GET dead-letters/summary", "GET dead-letters/{number}", "GET approvals"),
    *("GET approvals/{approval}", "GET stream", "GET info", "GET openapi.json", "GET summary"),
    *("GET graph", "GET alerts", "GET alerts/{number}", "GET hooks"),
)
_CHECKED = (
    *("POST datasets/events", "POST cloudevents", "POST datasets/replay", "POST runs/bulk"),
    *("POST tasks/bulk", "POST dead-letters/{number}/resend", "POST approvals/{approval}"),
    *("POST approvals/{approval}/links", "POST schedules/simulate"),
    "POST alerts/{number}/acknowledge",
)


def _table() -> dict[tuple[str, str], Scope]:
    found: dict[tuple[str, str], Scope] = {}
    for path, scope, entries in (
        ("/api/v1/dags/{dag_id}", Scope.DAG, _OF_DAG),
        ("/api/v1/runs/{run_id}", Scope.RUN, _OF_RUN),
        ("/api/v1/tasks/{task}", Scope.TASK, _OF_TASK),
        ("/api/v1/backfills/{backfill_id}", Scope.BACKFILL, _OF_BACKFILL),
        ("/api/v1/", Scope.SHOWN, _SHOWN),
        ("/api/v1/", Scope.CHECKED, _CHECKED),
    ):
        for entry in entries:
            method, _, rest = entry.partition(" ")
            found[method, path + rest] = scope
    return found


SCOPES: Mapping[tuple[str, str], Scope] = _table()
"""Method and path of a route → its scope."""


async def check_scope(
    request: web.Request, scope: Scope, role: Role, rights: Rights, read_models: ReadModels
) -> None:
    """Check that rights suffice for what the path of a request names.

    Raises:
        NotFound: It does not exist, or may not be seen; the two answers are the same.
        BadRequest: It may be seen, but the role on it does not suffice (403).
    """
    parts = request.match_info
    if scope in (Scope.SHOWN, Scope.CHECKED):
        return
    if scope is Scope.DAG:
        check_dag(rights, parts["dag_id"], role)
        return
    kind = str(scope)
    name = parts[{Scope.RUN: "run_id", Scope.TASK: "task"}.get(scope, "backfill_id")]
    try:
        key = UUID(name[:_RUN_ID_CHARACTERS] if scope is Scope.TASK else name)
    except ValueError:
        raise NotFound(kind, name) from None
    if scope is Scope.BACKFILL:
        dag_id = (await read_models.backfills.get(key)).dag_id
    else:
        dag_id = (await read_models.runs.brief(key)).view.dag_id
    # The text of what is not there: 403 would say that it exists.
    if not rights.sees_dag(dag_id):
        raise NotFound("backfill" if scope is Scope.BACKFILL else "run", str(key))
    check_dag(rights, dag_id, role)


def check_dag(rights: Rights | None, dag_id: str, role: Role = Role.VIEWER) -> None:
    """Check that rights include a role on a DAG; None for rights to everything.

    Raises:
        NotFound: The DAG may not be seen.
        BadRequest: The role on it does not suffice (403).
    """
    if rights is None:
        return
    if not rights.sees_dag(dag_id):
        raise NotFound("DAG", dag_id)
    if not rights.may_on_dag(role, dag_id):
        raise BadRequest(
            f"this needs the role {role} on DAG {dag_id}; yours there is "
            f"{rights.role_on_dag(dag_id)}",
            status=403,
        )


def check_dataset(rights: Rights | None, uri: str | None) -> None:
    """Check that a dataset may be seen; None for rights to everything, or for no dataset.

    Raises:
        NotFound: It may not.
    """
    if rights is not None and uri is not None and not rights.sees_dataset(uri):
        raise NotFound("dataset", uri)
