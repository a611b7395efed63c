"""Batches that are decided by remembered rows, and written by one statement.

A message that comes alone, as in a chain of DAGs, is decided by rows that this manager has itself
just written. To lock and read them again would be four round trips of five. The statement compares
their versions as it writes; where they differ the batch is decided anew, in a transaction. See
docs/adr/0069-decided-from-memory.md.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from pubsubflow.errors import StoreConflict, Unavailable
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.unit_of_work import CommittedBatch
from pubsubflow.model.recent import Recent
from pubsubflow.model.wire.commands import RecordEvents
from pubsubflow.model.wire.messages import NO_NODE, Outcome, ResultMessage
from pubsubflow.store.batches.manager_transaction import Transcript
from pubsubflow.store.batches.remembered import NotRememberedError, RememberedTransaction
from pubsubflow.store.batches.row_memory import RowMemory
from pubsubflow.store.database import Connection, translate_errors

_FEW_ITEMS = 2
_MANY_ITEMS = 16
_MAX_EVENTS = 16
_KEPT = 10_000
_MAX_DOUBLINGS = 10
Key = tuple[int | None, tuple[str, ...]]
"""What messages have in common: the datasets of events; for results also their DAG version."""


class _Misses(Struct):
    """How often messages that have something in common could not be decided from memory, in a row.

    Attributes:
        count: How often.
        skipped: How many of them were not tried since: twice as many after each further time.
    """

    count: int = 0
    skipped: int = 0

    def skips(self) -> bool:
        """Whether the next one is not tried."""
        self.skipped += 1
        return self.skipped < 1 << self.count


class RememberedBatches:
    """Decides batches of one message from memory, where that has worked before.

    Args:
        processor: Decides.
        timed: Called with the seconds of each statement.
        counted: Called with what became of each attempt: `written` or `decided_anew`.
    """

    def __init__(
        self,
        processor: BatchProcessor,
        timed: Callable[[float], None],
        counted: Callable[[str], None],
    ) -> None:
        self._processor = processor
        self._timed = timed
        self._counted = counted
        self._memory = RowMemory()
        self._misses: Recent[Key, _Misses] = Recent(_KEPT)
        self._new: Key | None = None
        self._items = 0

    def forget(self) -> None:
        """Forget all rows: a server that a new connection leads to may be another one."""
        self._memory = RowMemory()

    def learn(self, batch: Sequence[InboxItem], transcript: Transcript) -> None:
        """Remember the rows of a transaction that has committed."""
        if len(batch) > _MANY_ITEMS:
            # What comes in such numbers is not decided one by one.
            self._memory = RowMemory()
            return
        self._memory.learn(transcript)
        if self._new is not None:
            self._misses.put(self._new, _Misses())

    async def process(
        self, connection: Connection, batch: Sequence[InboxItem]
    ) -> CommittedBatch | None:
        """Decide a batch from memory and write it; None if it has to be decided in a transaction.

        Raises:
            StoreUnavailable: The connection broke; the statement may have been carried out.
        """
        self._new = None
        memory, before, self._items = self._memory, self._items, len(batch)
        # After a larger one more are on their way, which gather while a transaction runs.
        alone = self._items == 1 and before <= _FEW_ITEMS
        key = _key(batch[0], memory) if alone else None
        if key is None:
            return None
        misses = self._misses.get(key)
        if misses is None:
            # What it needs is not known before the first one: that one teaches it.
            self._new = key
            return None
        if misses.skips():
            return None
        committed = await self._try(connection, batch, memory)
        if committed is None:
            self._misses.put(key, _Misses(min(misses.count + 1, _MAX_DOUBLINGS)))
        else:
            misses.count = misses.skipped = 0
        self._counted("decided_anew" if committed is None else "written")
        return committed

    async def _try(
        self, connection: Connection, batch: Sequence[InboxItem], memory: RowMemory
    ) -> CommittedBatch | None:
        transaction = RememberedTransaction(connection, memory, self._timed)
        prepared: CommittedBatch | None = None
        try:
            with translate_errors():
                prepared = await self._processor.prepare(batch, transaction)
                await self._processor.write(prepared, transaction)
        except (NotRememberedError, StoreConflict):
            for item in batch:
                item.reset()
            return None
        except Unavailable:
            if prepared is not None and self._processor.direct is not None:
                self._processor.direct.doubt(prepared)
            raise
        memory.learn(transaction.transcript)
        return prepared


def _key(item: InboxItem, memory: RowMemory) -> Key | None:
    """Return what a message has in common with others; None if it needs a transaction."""
    message = item.message
    if item.tried:
        return None
    if isinstance(message, ResultMessage):
        return _key_of_result(message, memory)
    if isinstance(message, RecordEvents):
        return _key_of_events(message)
    return None


def _key_of_result(message: ResultMessage, memory: RowMemory) -> Key | None:
    if message.outcome is not Outcome.SUCCESS or message.state or message.after != NO_NODE:
        return None
    run = memory.runs.get(message.run)
    task = memory.tasks.get((message.run, message.node, message.map_index))
    if run is None or task is None:
        return None
    return run.version, tuple(event.uri for event in message.emits)


def _key_of_events(message: RecordEvents) -> Key | None:
    if message.origin is not None or message.request is not None:
        return None
    if len(message.events) > _MAX_EVENTS:
        return None
    return None, tuple(dict.fromkeys(event.dataset for event in message.events))
