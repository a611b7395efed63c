"""Who publishes events while it runs."""

from collections.abc import Sequence

from msgspec import Struct

from pubsubflow.manager.inbox import Item
from pubsubflow.manager.spec_cache import Versions
from pubsubflow.manager.unit_of_work import Ledger
from pubsubflow.model.wire.commands import PostEvents
from pubsubflow.store.manager_transaction import FoldTransaction

Place = tuple[int, int, int]


class Origin(Struct, frozen=True):
    """The task behind an event, as those who consume it see it.

    Attributes:
        trail: The DAGs whose runs led to the event, its own included.
    """

    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    trail: tuple[int, ...] = ()


async def read_origins(
    items: Sequence[Item], ledger: Ledger, versions: Versions, transaction: FoldTransaction
) -> dict[Place, Origin]:
    """Return the tasks behind published events: run number, node, map index → who that is.

    The run may have ended meanwhile; then its trail is not known any more and begins with it.
    """
    places = {
        item.what.origin
        for item in items
        if isinstance(item.what, PostEvents) and item.what.origin is not None
    }
    if not places:
        return {}
    ended = sorted({run for run, _, _ in places} - ledger.runs.keys())
    rows = await transaction.fetch("read_ended_runs", ended) if ended else []
    await versions.load(transaction, (row["version"] for row in rows))
    known = {row["id"]: row for row in rows}
    found = {}
    for place in places:
        number, node, _ = place
        if number in ledger.runs:
            run = ledger.runs[number]
            version, run_id = run.version, run.facts.run_id
            trail = (*run.facts.trail, version.dag)
        elif number in known:
            version = versions.get(known[number]["version"])
            run_id, trail = str(known[number]["run_id"]), (version.dag,)
        else:
            found[place] = Origin()
            continue
        spec = version.spec
        found[place] = Origin(run_id, spec.dag_id, spec.tasks[node].task_id, trail)
    return found
