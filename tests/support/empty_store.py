"""A store for batches without servers."""

from collections import defaultdict
from datetime import UTC, datetime

from pubsubflow.model.wire.messages import encode
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Transcript


class EmptyStore(ManagerTransaction):
    """A database in which there is nothing but what a test says."""

    def __init__(self, **answers) -> None:
        self.queries: list[str] = []
        self.transcript = Transcript()
        self._answers = defaultdict(list, answers)

    async def fetch(self, query, *arguments):
        self.queries.append(query)
        if query == "register_datasets":
            return [{"uri": uri, "id": number} for number, uri in enumerate(arguments[0], 1)]
        if query == "allocate_run_ids":
            return [[self.queries.count(query)]]
        if query == "claim_idempotency_keys":
            return [{"key": key} for key in arguments[0]]
        return self._answers[query]

    async def _fetch(self, *_):
        # The one statement without a name of its own, made of the parts that are filled.
        self.queries.append("write_batch")
        written = {"written": 1, "written_at": datetime.now(UTC)}
        return [written | row for row in self._answers["write_batch"] or [{}]]

    async def fetch_in_turn(self, query, *calls):
        self.queries.append(query)
        if query == "lock_runs":
            return [{"node": None, **row} for row in self._answers[query]]
        count = sum(arguments[2] for arguments in calls)
        return [
            *({"event_ids": None, **row} for row in self._answers[query]),
            {"version": None, "event_ids": list(range(1, count + 1)), "awaited": False},
        ]


def dag_rows(*specs, paused=()) -> dict:
    """Return the answers of a store in which all events reach the DAGs of such specs."""
    state = {"active": 0, "queued": 0, "catch_up_from": None, "present": True, "missing": False}
    state |= {"backfills": 0, "apart": 0, "tag_limits": None, "canary": None}
    numbered = list(enumerate(specs, 1))
    return {
        "lock_dag_states": [
            {"dag": n, "version": n, "source": "s", "paused": spec.dag_id in paused, **state}
            for n, spec in numbered
        ],
        "read_dag_versions": [{"id": n, "dag": n, "spec": encode(spec)} for n, spec in numbered],
    }
