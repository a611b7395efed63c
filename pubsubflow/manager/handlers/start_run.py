"""Handler of the command that starts a run on request."""

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.chosen_keys import check_key
from pubsubflow.manager.handlers.commands import DagCommandHandler, printable_all
from pubsubflow.manager.inbox import ANOTHER_BODY, InboxItem
from pubsubflow.manager.unit_of_work import RunAnnotation
from pubsubflow.manager.working_state import LockedDag, RunDraft
from pubsubflow.model.runs.params import preset_params, validate_params
from pubsubflow.model.wire.audit_entries import AuditNote
from pubsubflow.model.wire.commands import STARTED_BY_TASK, RequestKey, StartRun
from pubsubflow.store.database import printable

# A caller that took such a key would keep a schedule from making its run.
_OWN_KEYS = ("dataset:", "partition:", "tick:", "late:")


class StartRunHandler(DagCommandHandler):
    """Starts runs on request."""

    async def carry_out(self, dag: LockedDag, item: InboxItem) -> str:
        """Make a run; return its id, or that of the one that exists under its key.

        Raises:
            InvalidInput: The params do not fit the DAG, the key is too long or reserved, the DAG
                has no result to answer with, or DAGs start each other in a circle.
        """
        command: StartRun = item.message
        if command.answered and dag.version.spec.result is None:
            raise InvalidInput(
                f"DAG {command.dag_id!r} has no result to answer with: name the task that returns "
                "it with DAG(result=…), or start a run with /runs"
            )
        draft = self._context.scheduler.draft(
            dag, "", "manual", printable(command.cause), logical_time=command.logical_time
        )
        item.ids = item.ids or [draft.run_id]
        draft.run_id = item.ids[0]
        draft.run_key = command.run_key or f"manual:{draft.run_id}"
        # A run without a key of its caller's exists only if a transaction that broke made it.
        if command.run_key is not None or item.tried:
            existing = await self._context.admission.existing(dag, [draft.run_key])
            if existing:
                await self._check_request(command.request)
                self._record(command.audit)
                return existing[draft.run_key]
        check_run_key(command.run_key)
        await self._note_origin(draft, command)
        params = preset_params(dag.version.spec, command.preset, command.params)
        draft.params = validate_params(dag.version.spec, params)
        draft.partition = None if command.partition is None else printable(command.partition)
        draft.requested_by = item.trace
        self._context.scheduler.begin(draft)
        if command.request is not None:
            # Under the lock of its DAG, which all that come with this key take.
            claim = (command.request.key, draft.run_id, command.request.digest)
            await self._transaction.write("claim_requests", [claim])
        if command.tags:
            annotation = RunAnnotation(draft.id, printable_all(command.tags))
            self._uow.runs.annotations.append(annotation)
        self._record(command.audit)
        return str(draft.run_id)

    def _record(self, audit: AuditNote | None) -> None:
        """Write the entry of the audit log with the run: it stands there if the run does."""
        if audit is not None:
            self._uow.outbox.audits.append(audit)

    async def _check_request(self, request: RequestKey | None) -> None:
        """Refuse a request whose key came with another body before."""
        if request is not None:
            rows = await self._transaction.fetch("find_requests", [request.key])
            if any(row["body"] not in (None, request.digest) for row in rows):
                raise InvalidInput(ANOTHER_BODY)

    async def _note_origin(self, draft: RunDraft, command: StartRun) -> None:
        if command.started_by is not None:
            draft.ancestry = command.started_by.ancestry
            await self._context.admission.check_started(draft.dag, draft.ancestry)
        elif draft.cause.startswith(STARTED_BY_TASK):
            # `runs explain` would show a task that has not started it.
            raise InvalidInput(f"a cause cannot begin with {STARTED_BY_TASK!r}: tasks' runs do")


def check_run_key(key: str | None) -> None:
    """Check the key that a caller chose for a run.

    Raises:
        InvalidInput: It cannot be a key, or looks like one that a schedule gives.
    """
    check_key(key)
    if key is not None and key.startswith(_OWN_KEYS):
        raise InvalidInput(f"the key {key[:40]!r} begins like those that schedules give")
