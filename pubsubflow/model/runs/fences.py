"""Fences: the numbers of deliveries, runs and leases, and the epoch of the database within them.

A restore takes back what the database has handed out since the backup, its counters included; what
NATS and the workers hold stays. So each restore begins a new epoch, which is the upper part of all
numbers handed out from then on: none of them is one that the database before had handed out.
"""

DELIVERIES_PER_CLEARING = 1_000_000
"""Delivery numbers that one clearing of a run sets apart."""

DELIVERIES_PER_EPOCH = 10_000_000_000
"""Delivery numbers of one epoch of the database."""

TRIGGERS_PER_EPOCH = 1_000_000_000_000
"""Numbers of triggers in one epoch."""

SLICES_PER_EPOCH = 65_536
"""Slices of runs in one epoch; the slice is the upper part of a run's number."""

LEASES_PER_EPOCH = 1_000
"""Epochs of a lease within one epoch of the database."""


def first_delivery(clear_number: int, epoch: int = 0) -> int:
    """Return the first delivery number of tasks after so many clearings of a run, in an epoch."""
    return epoch * DELIVERIES_PER_EPOCH + clear_number * DELIVERIES_PER_CLEARING + 1


def clear_number_of(delivery: int) -> int:
    """Return how often tasks of the run had been cleared at a delivery."""
    return delivery % DELIVERIES_PER_EPOCH // DELIVERIES_PER_CLEARING


def epoch_of(delivery: int) -> int:
    """Return the epoch of the database in which a delivery was handed out."""
    return delivery // DELIVERIES_PER_EPOCH
