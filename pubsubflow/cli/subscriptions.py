"""Commands about those who want events at a URL."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from pubsubflow.cli import output
from pubsubflow.cli.target import Asking
from pubsubflow.model.subscriptions import SubscriptionView

_DEFAULT = Asking()


async def create(
    url: str,
    /,
    *,
    dataset: str | None = None,
    dag: Annotated[list[str] | None, Parameter(negative=())] = None,
    where: str | None = None,
    mode: Literal["structured", "binary"] = "structured",
    unordered: bool = False,
    description: str = "",
    secret_stdin: bool = False,
    asking: Asking = _DEFAULT,
) -> None:
    """Deliver events to a URL from now on; prints the secret that signs them, this once.

    Args:
        url: Where events are posted to.
        dataset: URI, or a pattern such as 's3://lake/*/orders'; all datasets if left out.
        dag: Only events that tasks of this DAG emit; may be given several times.
        where: CEL over the event, such as 'event.extra.rows > 0'.
        mode: CloudEvents as JSON, or as headers and data.
        unordered: Send several side by side; one that is not taken holds back no other.
        description: For people.
        secret_stdin: Read the secret, whsec_…, from stdin in place of a new one.
        asking: Which daemon to ask, and the form of the answer.
    """
    secret = sys.stdin.readline().strip() if secret_stdin else None
    async with asking.client() as client:
        made = await client.subscribe(
            url,
            dataset=dataset,
            dags=dag or [],
            where=where,
            mode=mode,
            ordered=not unordered,
            description=description,
            secret=secret,
        )
    if asking.json:
        output.show_json(made)
    else:
        output.show(f"subscription {made.id} delivers to {made.url}", f"secret: {made.secret}")


async def list_subscriptions(*, limit: int | None = None, asking: Asking = _DEFAULT) -> None:
    """List subscriptions, the oldest first.

    Args:
        limit: How many at most; all if left out.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = client.subscriptions(limit=limit)
        if asking.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("subscription", "url", "dataset", "state", "delivered", "waiting", "dead", "last"),
            "trouble",
            narrow=4,
            right=["delivered", "waiting", "dead"],
            elastic=["url", "dataset", "trouble"],
        )
        async for each in found:
            listing.row(
                each.id,
                each.url,
                each.dataset or "all",
                each.state,
                str(each.delivered),
                str(each.waiting),
                str(each.dead),
                output.brief(each.last_at),
                each.reason or each.last_error,
            )
    listing.show(none="no subscriptions")


async def show(subscription: str, /, *, asking: Asking = _DEFAULT) -> None:
    """Show a subscription.

    Args:
        subscription: Its id.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        _show(await client.subscription(subscription), json=asking.json)


async def pause(subscription: str, /, *, asking: Asking = _DEFAULT) -> None:
    """Deliver nothing for a while; events wait in the log.

    Args:
        subscription: Its id.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = await client.pause_subscription(subscription)
    _tell(found, "is paused", json=asking.json)


async def resume(subscription: str, /, *, asking: Asking = _DEFAULT) -> None:
    """Go on where it stopped, also after its receiver had said that it is gone.

    Args:
        subscription: Its id.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = await client.pause_subscription(subscription, paused=False)
    _tell(found, "is active", json=asking.json)


async def delete(subscription: str, /, *, asking: Asking = _DEFAULT) -> None:
    """End a subscription.

    Args:
        subscription: Its id.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = await client.delete_subscription(subscription)
    _tell(found, "is deleted", json=asking.json)


async def send_test(subscription: str, /, *, asking: Asking = _DEFAULT) -> int:
    """Send a test event; exit with 1 if it is not taken.

    Args:
        subscription: Its id.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = await client.test_subscription(subscription)
    if asking.json:
        output.show_json(found)
    elif found.delivered:
        output.show(f"taken: {found.status} after {found.seconds:g} s")
    else:
        output.show(f"not taken: {found.reason}")
    return 0 if found.delivered else 1


def _tell(found: SubscriptionView, what: str, *, json: bool) -> None:
    if json:
        output.show_json(found)
    else:
        output.show(f"subscription {found.id} {what}")


def _show(found: SubscriptionView, *, json: bool) -> None:
    if json:
        output.show_json(found)
        return
    output.show(
        output.facts(
            [
                ("subscription", found.id),
                ("url", found.url),
                ("description", found.description or None),
                ("dataset", found.dataset or "all"),
                ("dags", ", ".join(found.dags) or "all"),
                ("where", found.where),
                ("mode", found.mode),
                ("order", "as in the log" if found.ordered else "side by side"),
                ("state", found.state),
                ("why", found.reason),
                ("created", output.moment(found.created_at)),
                ("delivered", str(found.delivered)),
                ("waiting", str(found.waiting)),
                ("dead letters", str(found.dead)),
                ("last sent", output.moment(found.last_at)),
                ("last status", None if found.last_status is None else str(found.last_status)),
                ("last error", found.last_error),
            ]
        )
    )
