"""Changes of DAGs' state by tasks that succeed: they take effect, or conflict and fail the task."""

from msgspec.structs import replace

from pubsubflow.manager.unit_of_work import StateRow, UnitOfWork
from pubsubflow.model.values.state import STATE_CONFLICT, find_conflict
from pubsubflow.model.wire.messages import NO_NODE, Outcome, ResultMessage, TaskError


def apply_state(uow: UnitOfWork, dag: int, message: ResultMessage) -> ResultMessage:
    """Take the changes of a success into the unit of work; return the failure if one conflicts.

    The rows are locked, so nothing changes them between the comparison and the commit.

    Args:
        uow: What the transaction changes.
        dag: The DAG.
        message: A result under a valid fence.
    """
    if message.outcome is not Outcome.SUCCESS:
        return message
    versions = uow.state.versions
    present = {change.name: versions.get((dag, change.name), 0) for change in message.state}
    conflict = find_conflict(message.state, present)
    if conflict is not None:
        return _failed(message, conflict)
    for change in message.state:
        key = dag, change.name
        versions[key] = versions.get(key, 0) + 1
        uow.state.rows[key] = StateRow(
            *key, change.value, versions[key], message.run, message.node, message.map_index
        )
    return message


def _failed(message: ResultMessage, conflict: str) -> ResultMessage:
    return replace(
        message,
        outcome=Outcome.FAILED,
        error=TaskError(STATE_CONFLICT, conflict),
        value=b"",
        length=None,
        emits=(),
        follow=None,
        then=NO_NODE,
        state=(),
    )
