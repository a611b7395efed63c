"""Events that tasks wait for, and events of watched datasets."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pubsubflow.manager.inbox import Item
from pubsubflow.manager.persistence.load_events import read_infos
from pubsubflow.manager.runs.waits import Deferring
from pubsubflow.manager.spec_cache import Versions
from pubsubflow.manager.unit_of_work import Ledger, LoggedEvent, Place
from pubsubflow.model.expressions import holds
from pubsubflow.model.wire.commands import PostEvents
from pubsubflow.model.wire.messages import FiredMessage, NewEvent, encode
from pubsubflow.store.manager_transaction import FoldTransaction, Row

EVENTS_A_READ = 1000
_decode = msgspec.msgpack.Decoder().decode


class Looking:
    """Lets tasks look for the events that they wait for, in the order of the log.

    Nobody else records events meanwhile: the transaction began with `await_event_writers`.
    """

    def __init__(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        versions: Versions,
        deferring: Deferring,
    ) -> None:
        self._ledger = ledger
        self._transaction = transaction
        self._versions = versions
        self._deferring = deferring

    async def look(self, places: Iterable[Place]) -> None:
        """Let tasks look; each goes on with the first event that it has not looked at."""
        rows = await self._transaction.fetch_rows("read_looks", sorted(set(places)))
        groups: dict[tuple[int | None, str | None], list[Row]] = {}
        for row in rows:
            groups.setdefault((row["dataset"], row["expression"]), []).append(row)
        for (dataset, expression), waits in groups.items():
            await self._look_through(dataset, expression, waits)

    async def _look_through(
        self, dataset: int | None, expression: str | None, waits: Sequence[Row]
    ) -> None:
        """Read the log once for all who wait for the same datasets."""
        open_ = list(waits)
        after = min(row["after"] for row in waits)
        since = min(row["since"] for row in waits)
        while True:
            rows = await self._transaction.fetch(
                "read_events_after", dataset, expression, after, since, EVENTS_A_READ
            )
            for event in await read_infos(rows, self._versions, self._transaction):
                open_ = [wait for wait in open_ if not self._answer(wait, event)]
                after = event.number
            if len(rows) < EVENTS_A_READ or not open_:
                break
        self._ledger.looked.extend((wait["trigger"], max(after, wait["after"])) for wait in open_)

    def _answer(self, wait: Row, event: LoggedEvent) -> bool:
        """Let a task go on with an event, if it is what it waits for."""
        early = event.recorded_at is None or event.recorded_at < wait["since"]
        if early or event.number <= wait["after"] or not _meets(wait["filter"], event):
            return False
        place = (wait["run"], wait["node"], wait["map_index"])
        self._deferring.event(
            place, wait["delivery"], wait["slot"], encode(event.info), event.number
        )
        return True


def _meets(expression: str | None, event: LoggedEvent) -> bool:
    return expression is None or holds(expression, event.info) is None


async def note_events(
    events: Sequence[LoggedEvent],
    datasets: Sequence[int],
    ledger: Ledger,
    transaction: FoldTransaction,
) -> None:
    """Note in the waits that new events concern that there is something to look at."""
    by_uri: dict[str, list[LoggedEvent]] = {}
    for event in events:
        by_uri.setdefault(event.info.dataset, []).append(event)
    for row in await transaction.fetch("find_event_waits", datasets):
        if any(_meets(row["filter"], event) for event in by_uri.get(row["uri"], ())):
            ledger.look_due.append(row["trigger"])
            ledger.looks.append((row["run"], row["node"], row["map_index"]))


async def take_watched(items: Sequence[Item], ledger: Ledger, transaction: FoldTransaction) -> None:
    """Turn what was seen of watched datasets into events to record, unless that is done.

    Only who holds the lease counts, so a source's position never goes back.
    """
    seen = [
        (item, item.what)
        for item in items
        if isinstance(item.what, FiredMessage) and item.what.run < 0
    ]
    if not seen:
        return
    rows = await transaction.fetch("lock_watches", sorted({what.trigger for _, what in seen}))
    known = {row["id"]: row for row in rows}
    sequences = {row["id"]: row["sequence"] for row in rows}
    for item, what in sorted(seen, key=lambda pair: pair[1].sequence):
        row = known.get(what.trigger)
        if row is None or row["epoch"] != what.epoch or what.sequence <= sequences[what.trigger]:
            continue
        sequences[what.trigger] = what.sequence
        ledger.watched.append((what.trigger, what.sequence, what.position))
        name = f"#{what.sequence}" if what.id is None else what.id
        payload: Any = _decode(what.payload)
        extra = payload if isinstance(payload, dict) else {"value": payload}
        event = NewEvent(row["uri"], extra, what.partition, what.time)
        item.what = PostEvents((event,), (f"watch:{what.trigger}:{name}",), "watch")


async def read_epochs(items: Sequence[Item], ledger: Ledger, transaction: FoldTransaction) -> None:
    """Learn who holds the leases of triggers that say that they failed."""
    failed = {
        item.what.trigger
        for item in items
        if isinstance(item.what, FiredMessage) and item.what.error is not None
    }
    if failed:
        rows = await transaction.fetch("find_epochs", sorted(failed))
        ledger.epochs.update((row["id"], row["epoch"]) for row in rows)
