"""Checks: listed with what they have found; held events are released, discarded, checked again."""

from typing import Literal

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.checks import CheckResultView, CheckView, SettledEvents

Outcome = Literal["waiting", "passed", "failed", "error", "removed"]
_DONE = {"release": "released", "discard": "discarded", "run-again": "checked again"}
_MANY = 1000


async def list_checks(*, limit: Limit | None = None, target: Target = DEFAULT) -> None:
    """List checks with the number of events that each holds, and its newest result.

    Args:
        limit: How many checks at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.checks(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("check", "dataset", "kind", "held", "last result", "at"),
            narrow=3,
            right=["held"],
            elastic=["dataset"],
            times=["at"],
        )
        async for each in found:
            listing.row(
                each.name, each.dataset, _kind(each), _held(each), _last(each), _at(each.last_at)
            )
    listing.show(none="no checks")


def _kind(check: CheckView) -> str:
    kind = "blocking" if check.blocking else "not blocking"
    if check.missing:
        return f"{kind}, missing"
    return f"{kind}, paused" if check.paused else kind


def _held(check: CheckView) -> str:
    return f"over {_MANY}" if check.held > _MANY else str(check.held)


def _last(check: CheckView) -> str:
    return "" if check.last_outcome is None else _found(check.last_outcome, check.last_severity)


def _found(outcome: str, severity: str | None) -> str:
    return f"{outcome} ({severity})" if outcome == "failed" and severity == "warn" else outcome


_at = output.brief


async def show_check(check: str, /, *, limit: Limit = 20, target: Target = DEFAULT) -> None:
    """Show a check and its newest results.

    Args:
        check: Name of the check.
        limit: How many results at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.check(check)
        if target.json:
            output.show_json(found)
            return
        output.show(
            output.facts(
                [
                    ("check", found.name),
                    ("of", found.dataset),
                    ("kind", _kind(found)),
                    ("severity", found.severity),
                    ("what", found.description),
                    ("owner", found.owner),
                    ("file", found.file if found.line is None else f"{found.file}:{found.line}"),
                    ("dag", found.dag_id),
                    ("holds", f"{_held(found)} event{'s' * (found.held != 1)}"),
                ]
            )
        )
        output.show("")
        await _show_results(client, check=check, limit=limit)


async def list_results(
    check: str | None = None,
    /,
    *,
    dataset: str | None = None,
    event: str | None = None,
    outcome: Outcome | None = None,
    limit: Limit = 20,
    target: Target = DEFAULT,
) -> None:
    """List what checks have found, the newest first.

    Args:
        check: Only results of this check.
        dataset: Only those about events of this URI.
        event: Only those about the event of this id.
        outcome: Only those with this outcome.
        limit: How many results at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        if target.json:
            await output.show_items(
                client.check_results(
                    check=check, dataset=dataset, event=event, outcome=outcome, limit=limit
                )
            )
            return
        await _show_results(
            client, check=check, dataset=dataset, event=event, outcome=outcome, limit=limit
        )


async def _show_results(
    client: Client,
    *,
    check: str | None,
    limit: int,
    dataset: str | None = None,
    event: str | None = None,
    outcome: Outcome | None = None,
) -> None:
    listing = output.Listing(
        *("event", "check", "result", "at", "what"), narrow=3, elastic=["what"], times=["at"]
    )
    found = client.check_results(
        check=check, dataset=dataset, event=event, outcome=outcome, limit=limit
    )
    async for each in found:
        at = output.brief(each.ended_at or each.created_at)
        result = _found(each.outcome, each.severity)
        listing.row(each.event_id, each.check, result, at, _what(each))
    listing.show(none="no results")


def _what(found: CheckResultView) -> str:
    parts = [found.description, output.compact(found.metadata) if found.metadata else ""]
    if found.holding:
        parts.append("holds the event")
    if found.released_by is not None:
        parts.append(f"released by {found.released_by}")
    parts.append(found.note or "")
    return "; ".join(filter(None, parts))


async def list_held(
    dataset: str | None = None,
    /,
    *,
    check: str | None = None,
    limit: Limit = 20,
    target: Target = DEFAULT,
) -> None:
    """List the events that checks hold, the newest first.

    Args:
        dataset: Only events of this URI.
        check: Only those that this check holds.
        limit: How many events at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.held_events(check=check, dataset=dataset, limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("event", "since", "dataset", "extra", "why"),
            narrow=4,
            elastic=["dataset", "extra", "why"],
            times=["since"],
        )
        async for each in found:
            since, extra = output.brief(each.recorded_at), output.compact(each.extra)
            listing.row(each.event_id, since, each.dataset, extra, each.held or "")
    listing.show(none="no event is held")


async def release_events(
    events: tuple[str, ...] = (),
    /,
    *,
    check: str | None = None,
    dataset: str | None = None,
    waiting: bool = False,
    note: str = "",
    target: Target = DEFAULT,
) -> None:
    """Release held events: their subscribers get them although a check has not passed.

    Args:
        events: Ids of the events; all that --check or --dataset name if left out.
        check: Events that this check holds.
        dataset: Events of this URI.
        waiting: Also events that only wait for a check, which has failed none of them.
        note: Why, in one line.
        target: The daemon, and the format of the output.
    """
    await _settle("release", events, check, dataset, target, waiting=waiting, note=note)


async def discard_events(
    events: tuple[str, ...] = (),
    /,
    *,
    check: str | None = None,
    dataset: str | None = None,
    waiting: bool = False,
    note: str = "",
    target: Target = DEFAULT,
) -> None:
    """Discard held events: no subscriber ever gets them.

    Args:
        events: Ids of the events; all that --check or --dataset name if left out.
        check: Events that this check holds.
        dataset: Events of this URI.
        waiting: Also events that only wait for a check, which has failed none of them.
        note: Why, in one line.
        target: The daemon, and the format of the output.
    """
    await _settle("discard", events, check, dataset, target, waiting=waiting, note=note)


async def check_again(
    events: tuple[str, ...] = (),
    /,
    *,
    check: str | None = None,
    dataset: str | None = None,
    target: Target = DEFAULT,
) -> None:
    """Check held events again, by the checks as they are now.

    Args:
        events: Ids of the events; all that --check or --dataset name if left out.
        check: The check that checks them again; all that hold them if left out.
        dataset: Events of this URI.
        target: The daemon, and the format of the output.
    """
    await _settle("run-again", events, check, dataset, target)


async def _settle(
    action: Literal["release", "discard", "run-again"],
    events: tuple[str, ...],
    check: str | None,
    dataset: str | None,
    target: Target,
    *,
    waiting: bool = False,
    note: str = "",
) -> None:
    """Send a request, again while there is more to do, and print what was done.

    Raises:
        ConfigError: Nothing is named.
    """
    if not (events or check or dataset):
        raise ConfigError(f"name events to {action}, or --check NAME, or --dataset URI")
    done: list[str] = []
    async with target.client() as client:
        while True:
            found = await client.settle_held_events(
                action, events, check=check, dataset=dataset, waiting=waiting, note=note
            )
            done += found.events
            # Those that are checked again may be chosen again: one part is enough then.
            if not found.more or not found.events or action == "run-again":
                break
    text = "\n".join(f"{each} {_DONE[action]}" for each in done) or "no such event is held"
    output.show_result(SettledEvents(events=done), text, json=target.json)
