import json
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import pytest
from aiohttp import web
from pubsubflow_triggers import HttpJson, HttpLongPoll, HttpStatus

from pubsubflow import DAG, Context, task
from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import TrialContext, first_events, round_trip, running

pytestmark = pytest.mark.anyio


class Server:
    """Answers with what the test put into it, the last one for ever; keeps what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.url = None

    async def handle(self, request):
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            request.transport.abort()
            raise web.HTTPServiceUnavailable
        status, body, headers = (*answer, None, None)[:3]
        text = None if body is None else json.dumps(body)
        return web.Response(
            status=status, text=text, headers=headers, content_type="application/json"
        )


@asynccontextmanager
async def serving(*answers, handle=None):
    server = Server(*answers)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle or server.handle)
    runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        server.url = f"http://{host}:{port}/orders"
        yield server
    finally:
        await runner.cleanup()


async def test_status_waits_through_other_answers_and_a_server_that_is_away():
    async with serving((404,), None, (503,), (200,)) as server:
        trigger = HttpStatus(url=server.url, method="HEAD")
        (event,) = await first_events(trigger)
        assert event.payload["status"] == 200
        assert event.payload["headers"]["content-type"].startswith("application/json")
    assert [request.method for request in server.asked] == ["HEAD"] * len(server.asked)
    assert len(server.asked) >= 4


async def test_status_fires_again_only_when_it_was_another():
    async with serving((200,), (200,), (404,), (201,), (500,)) as server:
        trigger = HttpStatus(url=server.url, status=frozenset({200, 201}))
        ctx = TrialContext(position=200)
        async with running(trigger, ctx) as run:
            assert (await run.next()).payload["status"] == 201
            await ctx.until("sleep", 8)
            assert len(run.events) == 1


async def test_a_server_is_left_alone_for_as_long_as_it_says():
    async with serving((503, None, {"Retry-After": "600"}), (200,)) as server:
        ctx = TrialContext()
        began = ctx.now()
        await first_events(HttpStatus(url=server.url), ctx=ctx)
        assert ctx.now() - began == timedelta(seconds=600)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"bearer": "env:API_TOKEN"}, {"Authorization": "Bearer quiet"}),
        ({"basic": ("me", "env:API_TOKEN")}, {"Authorization": "Basic bWU6cXVpZXQ="}),
        ({"bearer": "connection:crm"}, {"Authorization": "Bearer quieter"}),
        ({"headers": {"X-Key": "env:API_TOKEN", "X-Plain": "a"}}, {"X-Key": "quiet"}),
        ({}, {"Authorization": None}),
    ],
)
async def test_secrets_are_resolved_where_the_trigger_runs(fields, sent, monkeypatch):
    async with serving((200,)) as server:
        trigger = HttpStatus(url=server.url, **fields)
        monkeypatch.setenv("API_TOKEN", "quiet")
        assert "quiet" not in trigger.share_key()
        ctx = TrialContext(connections={"crm": {"secrets": {"token": "quieter"}}})
        await first_events(round_trip(trigger), ctx=ctx)
    (request,) = server.asked
    assert {name: request.headers.get(name) for name in sent} == sent


@pytest.mark.parametrize("status", [401, 407])
async def test_who_may_not_ask_fails_at_once(status):
    async with serving((status,)) as server:
        with pytest.raises(TriggerError, match=f"responds with {status}.*bearer"):
            await first_events(HttpStatus(url=server.url))
        (event,) = await first_events(HttpStatus(url=server.url, status=frozenset({status})))
        assert event.payload["status"] == status


async def test_a_server_that_stays_away_fails_at_the_limit():
    async with serving(None) as server:
        trigger = HttpStatus(url=server.url, max_failures=3)
        ctx = TrialContext()
        with pytest.raises(TriggerError, match="did not respond 3 times in a row"):
            await first_events(trigger, ctx=ctx)
        assert ctx.seen["trigger.server_away"] == 2


async def test_json_fires_when_its_condition_is_met_and_again_when_the_body_is_another():
    ready = {"state": "ready", "rows": 3}
    answers = [(200, {"state": "new"}), (200, []), (200,), (200, ready), (200, ready)]
    async with serving(*answers, (200, ready | {"rows": 4})) as server:
        trigger = HttpJson(url=server.url, condition="body.state == 'ready' && status == 200")
        first, second = await first_events(trigger, 2)
        (third,) = await first_events(trigger, ctx=TrialContext(position=first.position))
    assert first.payload["body"] == ready
    assert second.payload["body"] == third.payload["body"] == {"state": "ready", "rows": 4}


async def test_long_poll_goes_on_from_the_last_cursor_also_after_a_restart():
    answers = [(200, {"next": 1, "items": ["a"]}), (204,), (500,), (200, {"next": 2, "items": []})]
    answers += [(200, {"next": 2, "items": []}), (200, {"next": 3, "items": ["b"]})]
    async with serving(*answers) as server:
        trigger = HttpLongPoll(
            url=server.url,
            cursor="body.next",
            cursor_param="after",
            start="0",
            condition="size(body.items) > 0",
        )
        first, second = await first_events(trigger, 2)
        asked = [request.query["after"] for request in server.asked]
        async with running(trigger, TrialContext(position=second.position)) as run:
            await run.ctx.until("sleep", 2)
            assert run.events == []
    assert (first.id, first.payload["body"]["items"], first.position) == ("1", ["a"], "1")
    assert (second.id, second.payload["body"]["items"]) == ("3", ["b"])
    assert asked == ["0", "1", "1", "1", "2", "2"]
    assert server.asked[-1].query["after"] == "3"


async def test_long_poll_asks_again_when_a_held_question_gets_no_answer():
    asked, free = [], anyio.Event()

    async def hold(request):
        asked.append(request)
        if len(asked) == 1:
            await free.wait()
        return web.json_response({"news": True})

    async with serving(handle=hold) as server:
        trigger = HttpLongPoll(url=server.url, timeout=timedelta(seconds=0.2))
        ctx = TrialContext()
        (event,) = await first_events(trigger, ctx=ctx)
        free.set()
    assert event.payload["body"] == {"news": True}
    assert ctx.logged == []


async def test_long_poll_that_is_refused_fails():
    async with serving((404,)) as server:
        with pytest.raises(TriggerError, match="responds with 404"):
            await first_events(HttpLongPoll(url=server.url))


@pytest.mark.parametrize(
    "trigger",
    [
        HttpStatus(url="http://a", status=frozenset({200, 404}), basic=("a", "env:B")),
        HttpJson(url="https://a", condition="status == 200", headers={"A": "b"}),
        HttpLongPoll(url="env:FEED", cursor="body.next"),
    ],
)
def test_fields_are_the_serialised_form(trigger):
    assert round_trip(trigger) == trigger
    assert round_trip(trigger).share_key() == trigger.share_key()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: HttpStatus(url="ftp://a"), "http://"),
        (lambda: HttpStatus(url="http://a", method="get it"), "method"),
        (lambda: HttpStatus(url="http://a", status=frozenset()), "status"),
        (lambda: HttpStatus(url="http://a", status=frozenset({99})), "status"),
        (lambda: HttpStatus(url="http://a", timeout=timedelta(0)), "timeout"),
        (lambda: HttpStatus(url="http://a", max_failures=-1), "max_failures"),
        (lambda: HttpStatus(url="http://a", interval=timedelta(0)), "interval"),
        (lambda: HttpStatus(url="http://a", bearer="a", basic=("b", "c")), "both"),
        (lambda: HttpJson(url="http://a", condition="body."), "CEL"),
        (lambda: HttpLongPoll(url="http://a", cursor="body."), "CEL"),
    ],
)
def test_bad_fields_are_refused(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()


async def test_a_wait_in_a_dags_test_is_given_the_tests_connections():
    with DAG("waits") as waits:

        @task
        async def ask(ctx: Context):
            return (await ctx.wait(HttpStatus(url="connection:web"))).payload["status"]

        ask()

    async with serving((200,)) as server:
        done = await waits.atest(connections={"web": server.url})
    assert done.result("ask") == 200
