"""Webhooks and the counts of their requests."""

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.target import DEFAULT, Target


async def list_hooks(*, limit: Limit | None = None, target: Target = DEFAULT) -> None:
    """List webhooks, with counts of their requests since the daemon started.

    Args:
        limit: How many webhooks at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.hooks(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("webhook", "dataset", "verifier", "received", "accepted", "refused", "dead"),
            *("last", "path", "trouble"),
            narrow=6,
            right=["received", "accepted", "refused", "dead"],
            elastic=["dataset", "trouble"],
            times=["last"],
        )
        async for hook in found:
            listing.row(
                hook.name,
                hook.dataset,
                hook.verifier,
                str(hook.received),
                str(hook.accepted),
                str(hook.refused),
                str(hook.dead),
                output.brief(hook.last_received_at),
                hook.path,
                hook.trouble or hook.last_refusal,
            )
    listing.show(none="no webhooks")
