"""Troubles around a DAG's schedule: runs that were refused, and watches that see nothing."""

from pubsubflow.model.schedule.checks import describe_hold
from pubsubflow.model.schedule.explain import Reason
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

_MOST_LETTERS = 1000
_MOST_WATCHES = 20


async def read_troubles(connection: Connection, dag: int, dag_id: str) -> list[Reason]:
    """Return what keeps events from becoming runs of a DAG though nothing waits for them.

    Args:
        connection: To Postgres.
        dag: The DAG's number in the store.
        dag_id: Its name.
    """
    reasons = []
    letters = await connection.fetch(SQL["list_open_letters_of_dag"], dag, _MOST_LETTERS)
    if letters:
        count = len(letters)
        text = f"{count} run{'s' if count != 1 else ''} could not be made: {letters[0]['reason']}"
        if count == _MOST_LETTERS:
            text = f"at least {text}"
        command = f"see `pubsubflow dead-letters list --dag {dag_id}`"
        reasons.append(Reason(kind="dead_letters", text=f"{text}; {command}"))
    for row in await connection.fetch(SQL["list_troubled_watches"], dag, _MOST_WATCHES):
        text = "no triggerer runs it: start `pubsubflow daemon` with the role triggerer"
        if row["error"] is not None:
            text = f"it fails since {row['error_since']:%Y-%m-%d %H:%M} UTC: {row['error']}"
        reasons.append(Reason(kind="watch", text=f"the watch of {row['uri']}: {text}"))
    reasons += await _held(connection, dag)
    return reasons


async def _held(connection: Connection, dag: int) -> list[Reason]:
    """Return that checks hold events of a DAG's datasets."""
    row = await connection.fetchrow(SQL["count_held_events_of_dag"], dag)
    if row is None or not row["events"]:
        return []
    holds = await connection.fetch(SQL["read_holds"], [row["first"]])
    count = row["events"]
    more = "at least " if count == _MOST_LETTERS else ""
    text = f"{more}{count} event{'s wait' if count > 1 else ' waits'} for checks"
    if holds:
        first = holds[0]
        why = describe_hold(first["dag_id"], first["outcome"], first["description"])
        text += f"; the first is {why}"
    return [Reason(kind="held", text=f"{text}; see `pubsubflow checks held`")]
