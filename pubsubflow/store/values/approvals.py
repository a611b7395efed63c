"""Approvals in Postgres: waits that people end, and their answers."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from pubsubflow.errors import NotFound
from pubsubflow.model.api.approvals import ApprovalView, VoteView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.runs.approvals import decided_option
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.approvals import ApprovalSpec, Vote, decode_approval
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader

_NEWEST = 2**63 - 1


class ApprovalStore:
    """Reads approvals; a manager records the answers.

    Args:
        database: Postgres.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._specs = SpecReader()

    async def page(self, *, limit: int, after: int | None = None) -> Page[ApprovalView]:
        """Return the approvals that wait for answers, newest first.

        Args:
            limit: How many at most.
            after: The `next` of the page before.
        """
        async with self._database.search() as connection:
            rows = await connection.fetch(
                SQL["page_approvals"], _NEWEST if after is None else after, limit
            )
            items = await self._views(connection, rows)
        return Page(items, str(rows[-1]["number"]) if len(rows) == limit else None)

    async def get(self, approval: UUID) -> ApprovalView:
        """Return an approval with its answers, also after its end if it has any.

        Raises:
            NotFound: No approval has this id, or it ended without an answer.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["find_approvals"], [str(approval)])
            if rows:
                return (await self._views(connection, rows))[0]
            answers = await connection.fetch(SQL["read_approval_answers"], [str(approval)])
        if not answers:
            raise NotFound("approval", str(approval))
        row = answers[0]
        spec = decode_approval(row["question"])
        return _view(spec, row, row["task_id"], answers, over=True)

    async def _views(
        self, connection: Connection, rows: Sequence[asyncpg.Record]
    ) -> list[ApprovalView]:
        ids = [row["share_key"] for row in rows]
        found = await connection.fetch(SQL["read_approval_answers"], ids) if ids else []
        specs = await self._specs.load(connection, {row["version"] for row in rows})
        return [
            _view(
                decode_approval(row["data"]),
                row,
                _task(specs, row),
                [each for each in found if each["approval"] == row["share_key"]],
            )
            for row in rows
        ]


def _task(specs: dict[int, DagSpec], row: asyncpg.Record) -> str:
    spec = specs[row["version"]]
    node: int = row["node"]
    return spec.tasks[node].task_id


def _view(
    spec: ApprovalSpec,
    row: asyncpg.Record,
    task_id: str,
    answers: Sequence[asyncpg.Record],
    *,
    over: bool = False,
) -> ApprovalView:
    votes = [
        Vote(person=each["person"], role=each["role"], option=each["option"]) for each in answers
    ]
    answer = decided_option(spec, votes)
    state = "over" if over else "waiting"
    return ApprovalView(
        id=spec.id,
        title=spec.title,
        state=state if answer is None else "answered",
        options=list(spec.options),
        by=list(spec.by),
        quorum=spec.quorum,
        details=spec.details,
        form=spec.form,
        run_id=str(row["run_id"]),
        dag_id=row["dag_id"],
        task_id=task_id,
        map_index=None if row["map_index"] == NOT_MAPPED else row["map_index"],
        since=None if over else row["created_at"],
        escalated=spec.escalated,
        answer=answer,
        votes=[
            VoteView(
                person=each["person"],
                option=each["option"],
                comment=each["comment"],
                via=each["via"],
                remote=each["remote"],
                answered_at=each["answered_at"],
            )
            for each in answers
        ],
    )
