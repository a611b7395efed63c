"""Saving of checks: events that are held, checks that begin, positions of released events."""

from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.store.batches.manager_transaction import ManagerTransaction


async def save_checks(uow: UnitOfWork, transaction: ManagerTransaction) -> None:
    """Write held events and the checks that begin; findings are written as they are concluded."""
    checks, datasets = uow.checks, uow.log.datasets
    await transaction.write(
        "hold_events",
        [
            (
                event.id,
                event.info.event_id,
                datasets[event.info.dataset],
                bytes(event.extra).decode(),
                event.info.partition,
                event.info.time,
                event.info.source,
                event.run,
                event.node,
                event.map_index,
                "{" + ",".join(map(str, event.ancestry)) + "}",
                event.info.trace,
                uow.now,
            )
            for event in checks.held
        ],
    )
    await transaction.write(
        "begin_checks",
        [
            (
                each.event.id,
                each.dag,
                each.event.info.event_id,
                datasets[each.event.info.dataset],
                each.blocking,
                each.severity,
                each.run,
                each.run_id,
            )
            for each in checks.begun
        ],
    )


async def place_released(uow: UnitOfWork, transaction: ManagerTransaction) -> None:
    """Write the positions of released events in the log, also into what refers to them as held."""
    # Runs that began before, and those of this transaction, have the number of the held event.
    await transaction.write(
        "place_released_events", [(event.held_as, event.id) for event in uow.checks.released]
    )
