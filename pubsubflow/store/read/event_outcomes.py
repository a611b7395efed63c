"""Outcomes of events for each DAG: consumed, pending, filtered, expired, skipped or dead."""

from collections.abc import Mapping

import asyncpg

from pubsubflow.model.api.explain import EventOutcomeView
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.checks.holds import DISCARDED

_UNSEEN = "not processed: the DAG subscribed later, or no partition takes its key"
_PRUNED = "not known: a run that consumed it was pruned, or the DAG subscribed later"
_ABSENT = "not processed: no DAG file defined the DAG at that time"


async def read_event_outcomes(
    connection: Connection, ids: list[int], reasons: Mapping[int, str] | None = None
) -> Mapping[int, list[EventOutcomeView]]:
    """Return the outcomes of events, by id, for each DAG that subscribes or has consumed.

    Args:
        connection: Postgres.
        ids: The events.
        reasons: Of those that checks hold, or that were discarded: why.
    """
    found: dict[int, list[EventOutcomeView]] = {event: [] for event in ids}
    for row in await connection.fetch(SQL["read_event_outcomes"], ids):
        found[row["event"]].append(_decided(row))
    # A subscribed DAG without an outcome has not processed the event yet, or never will.
    for row in await connection.fetch(SQL["read_subscribed_dags"], ids):
        known = {outcome.dag_id for outcome in found[row["event"]]}
        held = row["catch_up_from"] is not None and row["catch_up_from"] <= row["event"]
        if row["dag_id"] not in known:
            found[row["event"]].append(_undecided(row, held=held))
    if reasons:
        for row in await connection.fetch(SQL["list_dags_of_held_events"], list(reasons)):
            reason = reasons[row["event"]]
            outcome = "discarded" if reason.startswith(DISCARDED) else "held"
            found[row["event"]].append(
                EventOutcomeView(dag_id=row["dag_id"], outcome=outcome, reason=reason)
            )
    return found


def _decided(row: asyncpg.Record) -> EventOutcomeView:
    return EventOutcomeView(
        dag_id=row["dag_id"],
        outcome=row["outcome"],
        place=row["input"],
        partition=row["partition_key"] or None,
        reason=row["reason"] or None,
        run_id=None if row["run_id"] is None else str(row["run_id"]),
        run_state=row["state"],
        at=row["at"],
    )


def _undecided(row: asyncpg.Record, *, held: bool) -> EventOutcomeView:
    if not held:
        reason = _ABSENT if row["absent"] else _PRUNED if row["perhaps_pruned"] else _UNSEEN
        return EventOutcomeView(dag_id=row["dag_id"], outcome="unseen", reason=reason)
    if row["paused"]:
        reason = "the DAG is paused"
    elif row["missing"]:
        reason = "the DAG is not in the DAGs folder at the moment"
    else:
        reason = "the DAG is catching up with past events"
    return EventOutcomeView(dag_id=row["dag_id"], outcome="pending", reason=reason)
