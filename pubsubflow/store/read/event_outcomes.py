"""What became of events, for each subscription."""

from collections.abc import Mapping

import asyncpg

from pubsubflow.model.api.explain import FateView
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

_UNSEEN = "it was not looked at: the DAG subscribed later, or no partition takes its key"


async def read_fates(connection: Connection, numbers: list[int]) -> Mapping[int, list[FateView]]:
    """Return what became of events, by their numbers, for each DAG that subscribes or consumed."""
    found: dict[int, list[FateView]] = {number: [] for number in numbers}
    for row in await connection.fetch(SQL["read_fates"], numbers):
        found[row["event"]].append(_decided(row))
    for row in await connection.fetch(SQL["read_subscribers"], numbers):
        known = {fate.dag_id for fate in found[row["event"]]}
        held = row["since"] is not None and row["since"] <= row["event"]
        if row["dag_id"] not in known:
            found[row["event"]].append(_undecided(row, held=held))
    return found


def _decided(row: asyncpg.Record) -> FateView:
    return FateView(
        dag_id=row["dag_id"],
        fate=row["fate"],
        place=row["place"],
        partition=row["cell"] or None,
        reason=row["reason"],
        run_id=None if row["run_id"] is None else str(row["run_id"]),
        run_state=row["state"],
        at=row["at"],
    )


def _undecided(row: asyncpg.Record, *, held: bool) -> FateView:
    if not held:
        return FateView(dag_id=row["dag_id"], fate="unseen", reason=_UNSEEN)
    reason = "the DAG is paused" if row["paused"] else "the DAG is catching up with the past"
    return FateView(dag_id=row["dag_id"], fate="pending", reason=reason)
