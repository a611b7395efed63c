"""Commands about webhooks."""

from pubsubflow.cli import output
from pubsubflow.cli.target import Asking

_DEFAULT = Asking()


async def list_hooks(*, limit: int | None = None, asking: Asking = _DEFAULT) -> None:
    """List webhooks, with what came through each since the daemon has started.

    Args:
        limit: How many at most; all if left out.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = client.hooks(limit=limit)
        if asking.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("webhook", "dataset", "verifier", "received", "accepted", "refused", "dead"),
            *("last", "path", "trouble"),
            narrow=6,
            right=["received", "accepted", "refused", "dead"],
            elastic=["dataset", "trouble"],
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
