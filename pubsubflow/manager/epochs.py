"""Epoch guard: finds that Postgres was restored, and begins a new epoch of the database.

The database itself cannot know that it was restored. So NATS keeps a witness: the identity of the
database, its epoch, and the number of its next transaction, at most half a second old. A manager
compares them on every new connection, before it changes or publishes anything. A database that is
another one, or has fewer transactions than the witness knows of, was restored. A standby that was
promoted counts as restored, as it may lack the last transactions of the server before, unless each
commit had waited for it, and nothing is missing: then all goes on.
"""

import secrets
from collections.abc import Callable

import anyio
import msgspec
import structlog
from msgspec.structs import astuple

from pubsubflow.bus import STREAM_STATE, STREAM_TASK, Bus, purge_stream, read_last
from pubsubflow.errors import BusUnavailable, ConfigError, StoreRestored
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.runs.fences import LEASES_PER_EPOCH, epoch_of, first_delivery
from pubsubflow.model.wire.commands import RecordEvents
from pubsubflow.model.wire.messages import (
    ALL_RUNS,
    CancelMessage,
    FiredMessage,
    LogMessage,
    ResultMessage,
    StartedMessage,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.database import Connection, begin_transaction, translate_errors
from pubsubflow.store.epochs import (
    StoreState,
    begin_epoch,
    identify,
    is_promoted_from,
    lock_store_state,
    read_identity,
    write_transaction,
)

log = structlog.get_logger()

_WITNESS_SECONDS = 0.5
_OTHERS_SECONDS = 3.0
"""How much later the witness learns of what others than managers have changed."""
_FIRST_SPAN = 50
"""A new epoch is up to so many numbers later: two restores of one backup give two epochs."""


class Witness(msgspec.Struct, frozen=True, array_like=True):
    """What NATS knows of the database.

    Attributes:
        epoch: The number of its epoch.
        identity: Cluster, database and timeline.
        next_transaction: The number of its next transaction.
        last_change: The last row of its change log.
        synchronous: Whether what was committed was on a standby, too.
    """

    epoch: int
    identity: str
    next_transaction: int
    last_change: int = 0
    synchronous: bool = False


_decode = msgspec.msgpack.Decoder(Witness).decode


def find_restore(state: StoreState, witness: Witness | None) -> str | None:
    """Return by what a restore of the database shows; None if it was not restored.

    Args:
        state: The state of the database.
        witness: What NATS knows of it, if anything.
    """
    if is_complete_standby(state, witness):
        return None
    if state.known_as not in (None, state.identity.name):
        return "it is another cluster, database or timeline than its epoch was begun on"
    # A witness of an earlier epoch was published late, by a manager that did not know better.
    if witness is None or witness.epoch < state.epoch:
        return None
    if witness.epoch > state.epoch:
        return "NATS knows of a later epoch"
    if witness.identity != state.identity.name:
        return "NATS knows another database"
    missing = witness.next_transaction - state.identity.next_transaction
    return f"{missing} transactions that NATS knows of are missing" if missing > 0 else None


def is_complete_standby(state: StoreState, witness: Witness | None) -> bool:
    """Return whether a database is a standby that was promoted and has all that was committed.

    Numbers of transactions prove nothing here: one that was handed out need not have reached the
    standby, and other users of the servers take some, too. The change log is ours alone.

    Args:
        state: The state of the database.
        witness: What NATS knows of it, if anything.
    """
    if witness is None or witness.epoch != state.epoch or not witness.synchronous:
        return False
    name = state.identity.name
    return (
        is_promoted_from(name, witness.identity)
        # Another manager may have found it already.
        and state.known_as in (witness.identity, name)
        and state.identity.last_change >= witness.last_change
    )


def is_void(received: object, epoch: int) -> bool:
    """Return whether a message belongs to an epoch before this one.

    Raises:
        StoreRestored: It belongs to a later one, of which this daemon has not heard.
    """
    if isinstance(received, ResultMessage | StartedMessage | LogMessage):
        delivery: int | None = received.delivery
    elif isinstance(received, FiredMessage):
        if received.run < 0:
            return received.epoch < epoch * LEASES_PER_EPOCH
        delivery = received.delivery
    else:
        delivery = received.delivery if isinstance(received, RecordEvents) else None
    if delivery is None or epoch_of(delivery) == epoch:
        return False
    if epoch_of(delivery) > epoch:
        raise StoreRestored(f"a message of epoch {epoch_of(delivery)} came, this is {epoch}")
    return True


class EpochGuard:
    """Guards one daemon against a database that was restored.

    Args:
        bus: NATS, with the witness.
        chance: Draws a number below its argument.

    Attributes:
        number: The epoch of the database; None before the first check.
        checked: Whether the present connection was compared with the witness.
        due_at: When `testify` is due, in the loop's time: soon after a change known here.
    """

    def __init__(self, bus: Bus, *, chance: Callable[[int], int] = secrets.randbelow) -> None:
        self._bus = bus
        self._chance = chance
        self._changed = False
        self._tried_at = 0.0
        self._published: Witness | None = None
        self.number: int | None = None
        self.checked = False
        self.due_at = 0.0

    async def check(self, connection: Connection) -> None:
        """Compare a new connection with the witness; begin a new epoch after a restore.

        Without NATS it is compared as soon as that is back: `checked` says so.

        Raises:
            StoreRestored: The epoch is another one than that in which this daemon has started.
            StoreUnavailable: Postgres is away, or a standby.
        """
        witness = await self._read_witness()
        tasks, reason = 0, None
        with translate_errors():
            async with begin_transaction(connection):
                state = await lock_store_state(connection)
                epoch, name = state.epoch, state.identity.name
                reason = find_restore(state, witness) if self.checked else None
                if reason is not None:
                    known = epoch if witness is None else max(epoch, witness.epoch)
                    epoch = known + 1 + self._chance(_FIRST_SPAN)
                    tasks = await begin_epoch(connection, epoch, name)
                elif self.checked and state.known_as != name:
                    await identify(connection, name)
        if reason is not None:
            log.warning("store.restored", reason=reason, epoch=epoch, tasks_queued_again=tasks)
            await self._void_orders(epoch)
        elif self.checked and state.known_as not in (None, name):
            log.warning("store.standby_promoted", identity=name, before=state.known_as, lost=0)
        self.note_change()
        if self.number not in (None, epoch):
            raise StoreRestored(f"Postgres was restored: epoch {epoch} begins")
        self.number = epoch

    def drop_void(self, batch: list[InboxItem], count: Callable[[str], None]) -> None:
        """Acknowledge, log and count what belongs to the time before a restore.

        Raises:
            StoreRestored: A message belongs to a later epoch than that of this daemon.
        """
        epoch = self.number or 0
        for item in [each for each in batch if is_void(each.received, epoch)]:
            batch.remove(item)
            count(type(item.received).__name__)
            log.warning("manager.void_dropped", epoch=epoch, **item.log_fields())
            item.done(None)

    def return_unchecked(self, batch: list[InboxItem]) -> None:
        """Return messages to the bus while the connection is not compared with the witness.

        They may be of before a restore, and fit by chance what the restored database has.
        """
        if self.checked:
            return
        for item in tuple(batch):
            if item.later is not None:
                batch.remove(item)
                item.later()

    def note_change(self) -> None:
        """Note that the database has changed, so that the witness is to learn of it."""
        if not self._changed:
            self._changed = True
            self.due_at = min(self.due_at, self._tried_at + _WITNESS_SECONDS)

    async def testify(self, connection: Connection) -> None:
        """Publish the witness over a connection that was compared with it.

        Another connection may lead to a restored database already, and would hide that.
        """
        self._tried_at = anyio.current_time()
        if not self.checked or self.number is None:  # as soon as NATS is back
            self.due_at = self._tried_at + _WITNESS_SECONDS
            return
        with translate_errors():
            found = await read_identity(connection)
        self._changed = False
        self.due_at = self._tried_at + _WITNESS_SECONDS + _OTHERS_SECONDS
        if Witness(self.number, *astuple(found)) == self._published:
            return
        # A crash may take numbers back that no disk has seen: it is no restore.
        with translate_errors():
            number = await write_transaction(connection)
        found = msgspec.structs.replace(found, next_transaction=number)
        witness = Witness(self.number, *astuple(found))
        try:
            self._bus.publish(Subjects.WITNESS, encode(witness))
            self._published = witness
        except BusUnavailable as error:
            log.debug("manager.witness_not_published", reason=str(error))
            self.note_change()

    async def _read_witness(self) -> Witness | None:
        self.checked = False
        if not self._bus.connected:
            return None
        try:
            data = await read_last(self._bus, STREAM_STATE, Subjects.WITNESS)
        except (BusUnavailable, ConfigError) as error:
            log.warning("manager.witness_unread", reason=str(error))
            return None
        self.checked = True
        return None if data is None else _decode(data)

    async def _void_orders(self, epoch: int) -> None:
        """Remove the orders of earlier epochs, and have workers stop what they run by them.

        What this does not reach runs on, and its result is void.
        """
        stop = CancelMessage(
            ALL_RUNS, "Postgres was restored", below_delivery=first_delivery(0, epoch)
        )
        try:
            await purge_stream(self._bus, STREAM_TASK)
            self._bus.publish(Subjects.CANCEL, encode(stop))
        except (BusUnavailable, ConfigError) as error:
            log.warning("manager.orders_not_purged", reason=str(error))
