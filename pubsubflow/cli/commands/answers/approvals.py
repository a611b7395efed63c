"""Approvals: listed, shown, answered, and sent to people by a link."""

from typing import Annotated

from pubsubflow.cli import output
from pubsubflow.cli.param_values import form_values
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.model.api.approvals import ApprovalView


async def list_approvals(*, limit: Limit | None = None, target: Target = DEFAULT) -> None:
    """List the approvals that wait for answers.

    Args:
        limit: How many at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.approvals(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("approval", "question", "dag", "by", "answers", "since"),
            narrow=5,
            elastic=["question", "by"],
            times=["since"],
        )
        async for each in found:
            count = f"{len(each.votes)} of {each.quorum}"
            people = ", ".join(each.by)
            listing.row(each.id, each.title, each.dag_id, people, count, output.brief(each.since))
    listing.show(none="no approvals wait")


async def show_approval(approval: str, /, *, target: Target = DEFAULT) -> None:
    """Show an approval and its answers.

    Args:
        approval: Id of the approval.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.approval(approval)
    _show(found, json=target.json)


async def answer_approval(
    approval: str,
    option: str,
    /,
    *,
    value: Annotated[tuple[str, ...], Parameter(alias="-v")] = (),
    comment: str | None = None,
    target: Target = DEFAULT,
) -> None:
    """Send your answer to an approval, as the holder of the token.

    Args:
        approval: Id of the approval.
        option: One of its options.
        value: A value of its form, as name=value, in JSON or else as text. May be repeated.
        comment: For people.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        form = (await client.approval(approval)).form if value else None
        values = form_values(form, value)
        found = await client.answer_approval(approval, option, values=values, comment=comment)
    _show(found, json=target.json)


async def link_approval(
    approval: str,
    /,
    *,
    person: str,
    hours: float = 24.0,
    target: Target = DEFAULT,
) -> None:
    """Print a link by which a person without a token answers an approval; for admins.

    Args:
        approval: Id of the approval.
        person: Who is to answer by it.
        hours: How long it holds; 24 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        link = await client.approval_link(approval, person, seconds=round(hours * 3600))
        url = client.url + link.path
    output.show_result(link, url, json=target.json)


def _show(found: ApprovalView, *, json: bool) -> None:
    if json:
        output.show_json(found)
        return
    index = "" if found.map_index is None else f".{found.map_index}"
    facts = [
        ("approval", found.id),
        ("question", found.title),
        ("details", found.details),
        ("state", found.state if found.answer is None else f"answered: {found.answer}"),
        ("options", ", ".join(found.options)),
        ("by", ", ".join(found.by) + (", escalated" if found.escalated else "")),
        ("quorum", str(found.quorum)),
        ("dag", found.dag_id),
        ("task", f"{found.task_id}{index}"),
        ("run", found.run_id),
    ]
    for vote in found.votes:
        text = f"{vote.option}, by {vote.via} from {vote.remote or 'here'}"
        facts.append((vote.person, f"{text}: {vote.comment}" if vote.comment else text))
    output.show(output.facts(facts))
