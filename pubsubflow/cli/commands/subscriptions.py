"""Subscriptions, which deliver dataset events to URLs."""

import sys
from typing import Annotated, Literal

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.model.subscriptions import SubscriptionView


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
    target: Target = DEFAULT,
) -> None:
    """Create a subscription, and print the secret that signs its deliveries, once.

    Args:
        url: URL to which events are posted.
        dataset: URI, or a pattern such as 's3://lake/*/orders'; all datasets if left out.
        dag: Only events that tasks of this DAG emit; may be repeated.
        where: CEL condition on the event, such as 'event.extra.rows > 0'.
        mode: CloudEvents as one JSON body, or as headers and data.
        unordered: Deliver events concurrently; a failed delivery holds back no other.
        description: Note for people.
        secret_stdin: Read the secret, whsec_…, from stdin in place of generating one.
        target: The daemon, and the format of the output.
    """
    # Not an option with a value: that would show in lists of processes and the shell's history.
    secret = sys.stdin.readline().strip() if secret_stdin else None
    async with target.client() as client:
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
    lines = f"subscription {made.id} delivers to {made.url}", f"secret: {made.secret}"
    output.show_result(made, *lines, json=target.json)


async def list_subscriptions(*, limit: Limit | None = None, target: Target = DEFAULT) -> None:
    """List subscriptions, the oldest first.

    Args:
        limit: How many subscriptions at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.subscriptions(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("subscription", "url", "dataset", "state", "delivered", "waiting", "dead", "last"),
            "trouble",
            narrow=4,
            right=["delivered", "waiting", "dead"],
            elastic=["url", "dataset", "trouble"],
            times=["last"],
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


async def show(subscription: str, /, *, target: Target = DEFAULT) -> None:
    """Show a subscription.

    Args:
        subscription: Id of the subscription.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        _show(await client.subscription(subscription), json=target.json)


async def pause(subscription: str, /, *, target: Target = DEFAULT) -> None:
    """Pause a subscription; its events wait until it is resumed.

    Args:
        subscription: Id of the subscription.
        target: The daemon, and the format of the output.
    """
    await _set_paused(subscription, target, paused=True)


async def resume(subscription: str, /, *, target: Target = DEFAULT) -> None:
    """Resume a subscription where it stopped, also one that its receiver ended with status 410.

    Args:
        subscription: Id of the subscription.
        target: The daemon, and the format of the output.
    """
    await _set_paused(subscription, target, paused=False)


async def delete(subscription: str, /, *, target: Target = DEFAULT) -> None:
    """Delete a subscription.

    Args:
        subscription: Id of the subscription.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.delete_subscription(subscription)
    _show_change(found, "deleted", json=target.json)


async def send_test(subscription: str, /, *, target: Target = DEFAULT) -> int:
    """Send a test event to a subscription's URL, and fail if it is not accepted.

    Args:
        subscription: Id of the subscription.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.test_subscription(subscription)
    if target.json:
        output.show_json(found)
    elif found.delivered:
        output.show(f"accepted: {found.status} after {found.seconds:g} s")
    else:
        output.show(f"not accepted: {found.reason}")
    return 0 if found.delivered else 1


async def _set_paused(subscription: str, target: Target, *, paused: bool) -> None:
    async with target.client() as client:
        found = await client.pause_subscription(subscription, paused=paused)
    _show_change(found, "paused" if paused else "active", json=target.json)


def _show_change(found: SubscriptionView, state: str, *, json: bool) -> None:
    output.show_result(found, f"subscription {found.id} is {state}", json=json)


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
