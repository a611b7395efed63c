"""Workers and the queues that they serve."""

from pubsubflow.cli import output
from pubsubflow.cli.target import DEFAULT, Target


async def list_workers(*, target: Target = DEFAULT) -> None:
    """List workers with their queues and slots, as of their last heartbeats.

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
        *("host", "pid"),
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
        )
    listing.show(none="no workers")
