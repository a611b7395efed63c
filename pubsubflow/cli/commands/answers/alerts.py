"""Alerts: deadlines that passed, datasets without events, callbacks that failed."""

from typing import Literal

from pubsubflow.cli import output
from pubsubflow.cli.commands.runs import show_callbacks
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.model.api.alerts import AlertDetail


async def list_alerts(
    *,
    state: Literal["open", "acknowledged", "ended"] | None = None,
    kind: Literal["deadline", "freshness", "callback", "check"] | None = None,
    subject: str | None = None,
    limit: Limit = 20,
    target: Target = DEFAULT,
) -> None:
    """List alerts, the newest first.

    Args:
        state: Only those in this state.
        kind: Only those of this kind.
        subject: Only those about this DAG, dataset or check.
        limit: How many alerts at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.alerts(state=state, kind=kind, subject=subject, limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("alert", "kind", "state", "opened", "ended", "what"),
            elastic=["what"],
            times=["opened", "ended"],
        )
        async for alert in found:
            listing.row(
                str(alert.id),
                alert.kind,
                alert.state,
                output.brief(alert.opened_at),
                output.brief(alert.ended_at),
                alert.text,
            )
    listing.show(none="no alerts")


async def show_alert(alert: int, /, *, target: Target = DEFAULT) -> None:
    """Show an alert and the calls that it has made.

    Args:
        alert: Number of the alert.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        _show(await client.alert(alert), json=target.json)


async def acknowledge_alert(alert: int, /, *, target: Target = DEFAULT) -> None:
    """Acknowledge an alert: it stays open, and others see that it is known.

    Args:
        alert: Number of the alert.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        _show(await client.acknowledge_alert(alert), json=target.json)


def _show(found: AlertDetail, *, json: bool) -> None:
    if json:
        output.show_json(found)
        return
    seen = "" if found.acknowledged_by is None else f" by {found.acknowledged_by}"
    output.show(
        output.facts(
            [
                ("alert", str(found.id)),
                ("kind", found.kind),
                ("about", found.subject),
                ("run", found.run_id),
                ("state", found.state),
                ("what", found.text),
                ("opened", output.moment(found.opened_at)),
                ("acknowledged", f"{output.moment(found.acknowledged_at) or ''}{seen}" or None),
                ("ended", output.moment(found.ended_at)),
                ("why", found.ending),
                ("events", found.event_dataset),
            ]
        )
    )
    show_callbacks(found.callbacks)
