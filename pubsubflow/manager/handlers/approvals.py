"""Handler of answers to approvals: a vote, and the event that ends the wait once it is decided."""

from collections.abc import Sequence

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.handlers.handler import Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.runs.approvals import (
    ApprovalClosed,
    check_vote,
    decided_option,
    decision,
    is_recorded,
)
from pubsubflow.model.wire.approvals import ANSWERS, SOURCE, ApprovalSpec, Vote, decode_approval
from pubsubflow.model.wire.commands import AnswerApproval, RecordEvents
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.store.batches.manager_transaction import Row
from pubsubflow.store.database import printable


class AnswerApprovalHandler(Handler):
    """Records answers; the one that decides stands for the event that ends the wait."""

    async def resolve(self, items: Sequence[InboxItem]) -> None:
        """Record the answers, one after the other, and put events in place of those that decide."""
        for approval in sorted({item.message.approval for item in items}):
            await self._transaction.fetch("lock_approval", approval)
        for item in items:
            try:
                await self._answer(item, item.message)
            except (InvalidInput, NotFound) as error:
                item.error = error

    async def _answer(self, item: InboxItem, command: AnswerApproval) -> None:
        rows = await self._transaction.fetch("read_approval_answers", [command.approval])
        votes = [vote_of(row) for row in rows]
        waits = await self._transaction.fetch("find_approvals", [command.approval])
        if not waits:
            raise _over(command.approval, rows, votes)
        (wait,) = waits
        spec = decode_approval(wait["data"])
        if not (item.tried and is_recorded(votes, command.vote)):
            vote = check_vote(spec, command.vote, votes)
            await self._record(spec, vote, wait)
            votes.append(vote)
        if decided_option(spec, votes) is None:
            return
        extra = decision(spec, votes, run_id=str(wait["run_id"]), dag_id=wait["dag_id"])
        event = NewEvent(ANSWERS, extra)
        item.message = RecordEvents((event,), (f"approval:{command.approval}",), SOURCE)

    async def _record(self, spec: ApprovalSpec, vote: Vote, wait: Row) -> None:
        found = await self._context.specs.versions(self._transaction, [wait["version"]])
        version = found[wait["version"]]
        await self._transaction.fetch(
            "record_approval_answer",
            spec.id,
            vote.person,
            vote.role,
            vote.option,
            vote.values,
            None if vote.comment is None else printable(vote.comment),
            vote.via,
            vote.remote,
            wait["data"],
            wait["run_id"],
            wait["dag_id"],
            version.spec.tasks[wait["node"]].task_id,
            wait["map_index"],
        )


def vote_of(row: Row) -> Vote:
    """Return a stored answer."""
    return Vote(
        person=row["person"],
        role=row["role"],
        option=row["option"],
        values=row["values"],
        comment=row["comment"],
        via=row["via"],
        remote=row["remote"],
    )


def _over(approval: str, rows: Sequence[Row], votes: Sequence[Vote]) -> Exception:
    """Return why nothing waits for an answer."""
    if not rows:
        return NotFound("approval that waits for an answer", approval)
    spec = decode_approval(rows[0]["question"])
    chosen = decided_option(spec, votes)
    people = ", ".join(vote.person for vote in votes)
    if chosen is None:
        return ApprovalClosed(
            f"{spec.title!r} waits no longer: its time is over, or it was cancelled"
        )
    return ApprovalClosed(f"{spec.title!r} was answered already: {chosen!r} by {people}")
