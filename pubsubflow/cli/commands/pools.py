"""Pools and workers bound how many tasks run at once."""

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.target import DEFAULT, Target


async def list_pools(*, limit: Limit | None = None, target: Target = DEFAULT) -> None:
    """List pools with their slots, used slots and waiting tasks.

    Args:
        limit: How many pools at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.pools(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("pool", "slots", "used", "waiting"), right=["slots", "used", "waiting"]
        )
        async for pool in found:
            slots = "no limit" if pool.slots is None else str(pool.slots)
            listing.row(pool.name, slots, str(pool.used), str(pool.waiting))
    listing.show(none="no pools")


async def set_pool(pool: str, slots: int, /, *, target: Target = DEFAULT) -> None:
    """Limit how many tasks of a pool run at once, with immediate effect.

    Args:
        pool: Name of the pool, as in the tasks' pool=.
        slots: How many tasks; with 0 none starts.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.set_pool(pool, slots)
    text = f"{found.name}: {found.used} of {found.slots} slots used"
    output.show_result(found, text, json=target.json)


async def delete_pool(pool: str, /, *, target: Target = DEFAULT) -> None:
    """Remove the limit of a pool; tasks that still name the pool are not limited.

    Args:
        pool: Name of the pool.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        await client.remove_pool(pool)
    if not target.json:
        output.show(f"{pool} has no limit any more")


async def list_workers(*, target: Target = DEFAULT) -> None:
    """List workers with their queues, slots and versions, as of their last heartbeats.

    Args:
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        workers = (await client.info()).workers
    if target.json:
        output.show_list(workers)
        return
    listing = output.Listing(
        *("worker", "queues", "busy", "slots", "free sync", "free async", "seen", "started"),
        *("host", "pid", "version"),
        narrow=5,
        right=["busy", "slots", "free sync", "free async", "pid"],
        elastic=["worker", "queues", "host"],
        times=["seen"],
    )
    for worker in workers:
        listing.row(
            worker.worker,
            ", ".join(worker.queues),
            str(worker.busy),
            str(worker.slots),
            str(worker.free_sync),
            str(worker.free_async),
            output.brief(worker.seen_at),
            output.brief(worker.started_at),
            worker.host,
            str(worker.pid),
            worker.version or "unknown",
        )
    listing.show(none="no workers")
