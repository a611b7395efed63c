"""Restores are found by what NATS knows of the database; messages belong to epochs."""

import pytest

from pubsubflow.errors import StoreRestored
from pubsubflow.manager.epochs import EpochGuard, Witness, find_restore, is_void
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.runs.fences import (
    DELIVERIES_PER_CLEARING,
    LEASES_PER_EPOCH,
    clear_number_of,
    epoch_of,
    first_delivery,
)
from pubsubflow.model.wire.commands import RecordEvents, StartRun
from pubsubflow.model.wire.messages import (
    FiredMessage,
    LogMessage,
    StartedMessage,
    WorkerLostMessage,
)
from pubsubflow.store.epochs import StoreIdentity, StoreState

HERE = "7.5.00000001"
PROMOTED = "7.5.00000002"


@pytest.mark.parametrize(
    ("state", "witness", "restored"),
    [
        (StoreState(0, None, StoreIdentity(HERE, 100)), None, None),
        (StoreState(0, HERE, StoreIdentity(HERE, 100)), None, None),
        (StoreState(0, HERE, StoreIdentity(HERE, 100)), Witness(0, HERE, 100), None),
        (StoreState(0, HERE, StoreIdentity(HERE, 101)), Witness(0, HERE, 100), None),
        (StoreState(3, HERE, StoreIdentity(HERE, 90)), Witness(2, HERE, 100), None),
        (StoreState(0, HERE, StoreIdentity(HERE, 99)), Witness(0, HERE, 100), "1 transactions"),
        (StoreState(0, HERE, StoreIdentity(PROMOTED, 100)), Witness(0, HERE, 100), "timeline"),
        (StoreState(0, HERE, StoreIdentity(PROMOTED, 100)), None, "timeline"),
        (StoreState(2, HERE, StoreIdentity(HERE, 200)), Witness(3, HERE, 100), "later epoch"),
        (
            StoreState(0, None, StoreIdentity(HERE, 200)),
            Witness(0, "8.1.00000001", 100),
            "another database",
        ),
    ],
)
def test_a_restore_shows(state, witness, restored):
    found = find_restore(state, witness)
    assert found is None if restored is None else restored in found


def promoted(last_change: int, known_as: str = HERE, epoch: int = 0) -> StoreState:
    # A transaction that was handed out, and had written nothing, did not reach the standby.
    return StoreState(epoch, known_as, StoreIdentity(PROMOTED, 90, last_change))


@pytest.mark.parametrize(
    ("state", "restored"),
    [
        (promoted(7), None),
        (promoted(8), None),
        (promoted(7, known_as=PROMOTED), None),  # another manager found it first
        (promoted(6), "timeline"),
        (promoted(7, known_as="7.5.00000003"), "timeline"),
        (promoted(7, epoch=1), "timeline"),
        (StoreState(0, HERE, StoreIdentity("7.6.00000002", 90, 7)), "timeline"),
        (
            StoreState(0, HERE, StoreIdentity("7.5.0000000A", 90, 7)),
            None,
        ),  # numbers are hexadecimal
    ],
)
def test_a_standby_that_each_commit_has_waited_for_is_no_restore(state, restored):
    found = find_restore(state, Witness(0, HERE, 100, last_change=7, synchronous=True))
    assert found is None if restored is None else restored in found
    asynchronous = Witness(0, HERE, 100, last_change=7)
    assert find_restore(state, asynchronous) is not None


def messages(epoch: int, clearings: int = 0) -> list[object]:
    delivery = first_delivery(clearings, epoch)
    return [
        StartedMessage(1, 0, -1, 1, delivery, "w", 0.0),
        LogMessage(1, 0, -1, 1, delivery, 0, "x"),
        FiredMessage(1, 1, 1, 1, 0, -1, delivery, 0),
        FiredMessage(1, epoch * LEASES_PER_EPOCH + 1, 1, -1, 0, -1, 0, 0),
        RecordEvents((), (), "task", (1, 0, -1), delivery=delivery),
    ]


@pytest.mark.parametrize("message", messages(2, clearings=7))
def test_messages_of_the_present_epoch_count(message):
    assert not is_void(message, 2)


@pytest.mark.parametrize("message", messages(1) + messages(0))
def test_messages_of_earlier_epochs_are_void(message):
    assert is_void(message, 2)


@pytest.mark.parametrize(
    "message", [WorkerLostMessage("w"), RecordEvents((), ()), StartRun("d"), ValueError()]
)
def test_what_belongs_to_no_epoch_counts(message):
    assert not is_void(message, 2)


def test_a_message_of_a_later_epoch_says_that_the_database_was_restored():
    with pytest.raises(StoreRestored, match="epoch 3"):
        is_void(messages(3)[0], 2)


def test_deliveries_tell_clearing_and_epoch():
    delivery = first_delivery(7, 3) + 5
    assert (epoch_of(delivery), clear_number_of(delivery)) == (3, 7)
    assert first_delivery(0) == 1
    assert first_delivery(2) == 2 * DELIVERIES_PER_CLEARING + 1


def test_messages_of_the_bus_wait_until_the_database_is_compared():
    """What may be of before a restore must not meet rows that fit it by chance."""
    returned = []
    guard = EpochGuard(bus=None)
    done = {"done": returned.append, "failed": returned.append}
    message = WorkerLostMessage("w")
    item = InboxItem(message, **done, later=lambda: returned.append("later"), subject="psf.in.x")
    command = InboxItem(StartRun("d"), **done)
    batch = [item, command]
    guard.return_unchecked(batch)
    assert (batch, returned) == ([command], ["later"])
    guard.checked = True
    batch = [item, command]
    guard.return_unchecked(batch)
    assert (batch, returned) == ([item, command], ["later"])
