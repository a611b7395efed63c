"""Which task instances a message is about, and their rows."""

from collections.abc import Sequence

from pubsubflow.manager.inbox import Item
from pubsubflow.manager.runs.pools import AWAY
from pubsubflow.manager.runs.waits import WAIT_TIMERS
from pubsubflow.manager.unit_of_work import Ledger, LiveTask, Place
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.wire.commands import LookForEvents, PostEvents, TimersDue
from pubsubflow.model.wire.messages import (
    NO_NODE,
    NOT_MAPPED,
    FiredMessage,
    ResultMessage,
    StartedMessage,
)
from pubsubflow.store.manager_transaction import Row

TASK_TIMERS = ("retry", *WAIT_TIMERS)


def addressed(what: object) -> list[Place]:
    """Return the task instances whose rows deciding about a message needs."""
    if isinstance(what, PostEvents):
        return [] if what.origin is None else [what.origin]
    if isinstance(what, LookForEvents):
        return list(what.places)
    if isinstance(what, TimersDue):
        return [
            (timer.run, timer.node, NOT_MAPPED if timer.map_index is None else timer.map_index)
            for timer in what.timers
            if timer.kind in TASK_TIMERS and timer.run is not None and timer.node is not None
        ]
    if isinstance(what, StartedMessage | FiredMessage):
        return [(what.run, what.node, what.map_index)]
    if isinstance(what, ResultMessage):
        before = [] if what.after == NO_NODE else [(what.run, what.after, NOT_MAPPED)]
        return [(what.run, what.node, what.map_index), *before]
    return []


def origins_of_chains(items: Sequence[Item], ledger: Ledger) -> list[tuple[int, int, int]]:
    """Name what a chained result came from that is not at hand: it may still be to come."""
    keys: set[tuple[int, int, int]] = set()
    for item in items:
        what = item.what
        if not isinstance(what, ResultMessage) or what.after == NO_NODE:
            continue
        run = ledger.runs.get(what.run)
        if run is None or run.progress.nodes[what.node].complete:
            continue
        line = [what.node, *run.line_before(what.node)]
        if not any((node, NOT_MAPPED) in run.live for node in line):
            keys.update((what.run, node, NOT_MAPPED) for node in line)
    return sorted(keys)


def take_in(ledger: Ledger, rows: Sequence[Row]) -> None:
    """Take in the live tasks of locked runs."""
    for row in rows:
        run = ledger.runs.get(row["run"])
        if run is None:
            continue
        state = TaskState(row["state"])
        run.live[row["node"], row["map_index"]] = LiveTask(
            row["attempt"],
            row["delivery"],
            row["crashes"],
            state,
            row["chained"],
            row["worker"],
            row["queued_at"],
            row["started_at"],
            row["waiting"],
            row["base"],
            stored=True,
            slotted=state not in AWAY,
            changed=False,
            before=(state, row["attempt"]),
        )
