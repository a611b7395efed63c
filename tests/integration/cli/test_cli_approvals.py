"""Approvals through a daemon: who may answer, quorum, links, escalation, what is late or forged."""

import asyncio
import json

import aiohttp
import pytest

from pubsubflow.client import Client, RequestFailed, RequestRefused

pytestmark = pytest.mark.anyio
QUESTION = "Deploy to production?"


@pytest.fixture
async def client(daemon_url):
    async with Client(daemon_url) as client:
        yield client


async def asked(client, run_id, *, escalated=False):
    """Return the approval that a run waits for, once it does."""
    while True:
        async for each in client.approvals():
            if each.run_id == run_id and each.escalated == escalated:
                return each
        await asyncio.sleep(0.02)  # the next look over HTTP; nothing tells a client of it


async def test_an_answer_ends_the_wait_once_and_the_values_fit_the_form(client):
    run_id = await client.trigger("deploying")
    approval = await asked(client, run_id)
    assert (approval.title, approval.task_id, approval.quorum) == (QUESTION, "deploy", 1)
    waits = (await client.explain(run_id)).waits
    assert any(f"waits for an answer to '{QUESTION}' by role:operator" in line for line in waits)
    with pytest.raises(RequestRefused, match="'shrug' is not an option"):
        await client.answer_approval(approval.id, "shrug")
    with pytest.raises(RequestRefused, match="percent"):
        await client.answer_approval(approval.id, "approve")
    forged = {"approval": approval.id, "option": "approve", "values": {"percent": 1}, "people": []}
    await client.emit([{"dataset": "pubsubflow://approvals/answers", "extra": forged}])
    answers = [
        client.answer_approval(approval.id, "approve", values={"percent": 5}) for _ in range(3)
    ]
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert sum(not isinstance(each, Exception) for each in outcomes) == 1
    result = await client.result(run_id, timeout_seconds=20)
    assert result.result == {"option": "approve", "percent": 5, "people": ["local"]}
    with pytest.raises(RequestFailed, match="was answered already: 'approve' by local"):
        await client.answer_approval(approval.id, "reject", values={"percent": 5})
    assert (await client.approval(approval.id)).answer == "approve"


async def test_a_link_answers_as_its_person_and_is_not_used_up_by_a_look(client, daemon_url):
    by = ["user:ann@example.org", "user:bob"]
    run_id = await client.trigger("deploying", params={"by": by, "quorum": 2})
    approval = await asked(client, run_id)
    with pytest.raises(RequestRefused, match="local may not answer"):
        await client.answer_approval(approval.id, "approve", values={"percent": 5})
    links = [await client.approval_link(approval.id, name) for name in ("ann@example.org", "bob")]
    async with aiohttp.ClientSession(daemon_url, headers={"Accept": "text/html"}) as session:
        for link in links:
            for _ in range(2):
                async with session.get(link.path) as response:
                    page = await response.text()
            assert "build 7 &lt;b&gt;" in page
            assert f"You answer as {link.person}" in page
            form = {"option": "approve", "comment": "fine", "values": json.dumps({"percent": 7})}
            async with session.post(link.path, data=form) as response:
                assert response.status == 200, await response.text()
            async with session.post(link.path, data=form) as response:
                assert response.status == 409
        path = links[0].path
        for wrong in (path[:-3] + "AAA", "/approve/x", path.replace("/approve/", "/approve/A")):
            async with session.get(wrong) as response:
                assert response.status == 404
    result = await client.result(run_id, timeout_seconds=20)
    assert result.result["people"] == ["ann@example.org", "bob"]
    shown = await client.approval(approval.id)
    assert [(vote.person, vote.via, vote.comment) for vote in shown.votes] == [
        ("ann@example.org", "link", "fine"),
        ("bob", "link", "fine"),
    ]
    audit = [each async for each in client.audit(principal="bob")]
    assert [each.status for each in audit] == [409, 200]


async def test_more_people_are_asked_after_a_while(client):
    run_id = await client.trigger("escalating")
    approval = await asked(client, run_id, escalated=True)
    assert approval.by == ["user:nobody", "role:admin"]
    await client.answer_approval(approval.id, "yes")
    assert (await client.result(run_id, timeout_seconds=20)).result == {"option": "yes"}
    lines = [each.message async for each in client.logs(run_id, "ask")]
    assert [line for line in lines if line.startswith("told")] == ["told False", "told True"]


async def test_what_nobody_answers_ends_by_its_time_or_with_its_run(client):
    assert (await client.call("defaulting")).result == {"option": "reject", "people": []}
    late = await client.trigger("deploying", params={"seconds": 0.1})
    assert (await client.wait(late)).state == "failed"
    run_id = await client.trigger("deploying", params={"quorum": 2})
    approval = await asked(client, run_id)
    await client.answer_approval(approval.id, "approve", values={"percent": 5})
    with pytest.raises(RequestFailed, match="has answered"):
        await client.answer_approval(approval.id, "reject", values={"percent": 5})
    await client.cancel(run_id)
    with pytest.raises(RequestFailed, match="waits no longer"):
        await client.answer_approval(approval.id, "approve", values={"percent": 5})
