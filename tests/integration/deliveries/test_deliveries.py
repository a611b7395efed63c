"""Events reach those who want them at a URL: signed, in order, at least once, or are kept."""

import json
from uuid import UUID

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pubsubflow.bus import Bus
from pubsubflow.model.subscriptions import TEST
from pubsubflow.model.wire.commands import RedriveDeadLetter
from support.receiver import BARRIER, DISCONNECT, HANG, HOLD, QUICK, URI

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_an_event_comes_as_a_signed_cloud_event(harness, mode):
    made = await harness.subscribe("r", mode=mode, dataset=URI)
    (event_id,) = await harness.post("żółw", part="2026-11 %", rows=3)
    await harness.receiver.until(lambda: harness.receiver.received["r"])
    (got,) = harness.receiver.received["r"]
    event = got.event
    assert got.webhook_id == f"{event_id}_{made.id}"
    assert (event.get_id(), event.get_source()) == (event_id, "/pubsubflow")
    assert event.get_type() == "org.pubsubflow.dataset.updated"
    assert event.get_subject() == URI
    assert event.get_attributes()["partitionkey"] == "2026-11 %"
    assert event.get_data() == {"name": "żółw", "part": "2026-11 %", "rows": 3}
    (row,) = await harness.rows("SELECT time FROM event")
    assert event.get_time() == row["time"]
    found = await harness.until_subscription(made, lambda found: found.delivered)
    assert (found.last_status, found.last_error, found.dead, found.waiting) == (200, None, 0, 0)


async def test_a_subscriber_gets_only_events_that_match(harness):
    await harness.subscribe("all")
    await harness.subscribe("pattern", dataset="s3://lake/*")
    await harness.subscribe("one", dataset=URI, where="event.extra.name != 'b'")
    await harness.subscribe("dag", dags=("nobodys",))
    await harness.post("a", "b")
    await harness.post("c", uri="s3://lake/rates")
    await harness.post("d", uri="s3://sea/orders/x")
    await harness.post("e")
    names = harness.receiver.names
    await harness.receiver.until(lambda: "e" in names("all") and "e" in names("one"))
    await harness.receiver.until(lambda: "e" in names("pattern"))
    assert names("all") == ["a", "b", "c", "d", "e"]
    assert names("pattern") == ["a", "b", "c", "e"]
    assert names("one") == ["a", "e"]
    assert names("dag") == []


async def test_what_was_recorded_before_is_not_delivered(harness):
    await harness.post("before")
    await harness.subscribe("r")
    await harness.post("after")
    await harness.receiver.until(lambda: harness.receiver.received["r"])
    assert harness.receiver.names("r") == ["after"]


async def test_in_order_an_event_that_is_not_taken_holds_back_the_next(harness):
    harness.receiver.responses["r"] = iter([200, 503, DISCONNECT, 301, 404])
    made = await harness.subscribe("r")
    await harness.post("a", "b", "c")
    await harness.receiver.until(lambda: "c" in harness.receiver.names("r"))
    assert [got.name for got in harness.receiver.received["r"]] == [
        "a",
        "b",
        "b",
        "b",
        "b",
        "b",
        "c",
    ]
    assert len({got.webhook_id for got in harness.receiver.received["r"]}) == 3
    found = await harness.until_subscription(made, lambda found: found.delivered == 3)
    assert (found.dead, found.waiting) == (0, 0)


async def test_without_order_it_does_not_and_several_go_side_by_side(idle, serving):
    idle.receiver.responses["r"] = iter([503] + [BARRIER] * 4)
    async with serving(retry_seconds=(0.3,), parallel=4):
        made = await idle.subscribe("r", ordered=False)
        await idle.post(*"abcdefghij")
        await idle.receiver.until(lambda: len(idle.receiver.names("r")) == 10)
        assert idle.receiver.names("r")[-1] in [got.name for got in idle.receiver.received["r"][:4]]
        found = await idle.until_subscription(made, lambda found: found.delivered == 10)
    assert found.waiting == 0
    assert idle.receiver.peak["r"] == 4


async def test_after_the_last_try_an_event_is_a_dead_letter_and_can_be_sent_again(idle, serving):
    idle.receiver.responses["r"] = iter([500] * 3)
    async with serving(retry_seconds=QUICK[:2]):
        made = await idle.subscribe("r")
        event_id, _ = await idle.post("a", "b")
        await idle.receiver.until(lambda: idle.receiver.names("r") == ["b"])
        found = await idle.until_subscription(made, lambda found: found.delivered == 1)
        assert (found.dead, found.waiting) == (1, 0)
        (letter,) = await idle.rows("SELECT * FROM dead_letter")
        assert (letter["kind"], letter["subject"]) == ("delivery", made.id)
        assert "3 attempts" in letter["reason"]
        assert "500 Internal Server Error: scripted" in letter["reason"]
        held = json.loads(letter["payload"])
        assert held["event_id"] == event_id
        assert (held["attempts"], held["last_status"]) == (3, 500)
        await idle.manager.execute(RedriveDeadLetter(letter["id"]))
        await idle.receiver.until(lambda: idle.receiver.names("r") == ["b", "a"])
    assert len({got.webhook_id for got in idle.receiver.received["r"] if got.name == "a"}) == 1


async def test_a_receiver_that_is_gone_gets_nothing_until_a_person_resumes_it(harness):
    harness.receiver.responses["r"] = iter([200, 410])
    made = await harness.subscribe("r")
    await harness.post("a", "b", "c")
    found = await harness.until_subscription(made, lambda found: found.state == "gone")
    assert "410 Gone" in found.reason
    await harness.subscribe("other")
    await harness.post("d")
    await harness.receiver.until(lambda: harness.receiver.names("other") == ["d"])
    assert harness.receiver.names("r") == ["a"]
    await harness.subscribers.set_state(UUID(made.id), "active", None)
    harness.bus.publish("psf.ctl.subscriptions", b"")
    await harness.receiver.until(lambda: harness.receiver.names("r") == ["a", "b", "c", "d"])


async def test_a_receiver_that_hangs_does_not_delay_others(idle, serving):
    async with serving(timeout_seconds=60):
        idle.receiver.responses["slow"] = iter([HANG])
        await idle.subscribe("slow")
        await idle.subscribe("dead", url="http://127.0.0.1:1/")
        await idle.subscribe("quick")
        await idle.post(*"abc")
        await idle.receiver.until(lambda: idle.receiver.received["slow"])
        await idle.receiver.until(lambda: idle.receiver.names("quick") == ["a", "b", "c"])
    assert len(idle.receiver.received["slow"]) == 1


async def test_a_paused_subscriber_gets_its_events_when_it_is_resumed(harness):
    made = await harness.subscribe("r")
    await harness.subscribe("other")
    await harness.post("a")
    await harness.until_subscription(made, lambda found: found.delivered == 1)
    for state in ("paused", "active"):
        await harness.subscribers.set_state(UUID(made.id), state, None)
        harness.bus.publish("psf.ctl.subscriptions", b"")
        if state == "paused":
            await harness.post("b")
            await harness.receiver.until(lambda: harness.receiver.names("other") == ["a", "b"])
    await harness.receiver.until(lambda: harness.receiver.names("r") == ["a", "b"])


async def test_an_event_that_commits_late_keeps_its_place(harness):
    """Its number was taken before that of an event that is recorded already."""
    await harness.subscribe("r")
    async with harness.database.connection() as connection:
        async with connection.transaction():
            await connection.fetch(
                "SELECT 1 WHERE EXISTS (SELECT FROM event_wait WHERE dataset = 0)"
            )
            late = await connection.fetchval("SELECT nextval('event_id')")
            (first,) = await harness.post("b")
            await harness.until_safe_position_read()
            assert harness.receiver.received["r"] == []
            await connection.execute(
                "INSERT INTO event (id, event_id, dataset, extra, time, source) SELECT $1,"
                " gen_random_uuid(), dataset, '{\"name\": \"a\"}', time, 'api' FROM event"
                " WHERE event_id = $2",
                late, UUID(first),
            )  # fmt: skip
        await harness.receiver.until(lambda: len(harness.receiver.received["r"]) == 2)
    assert harness.receiver.names("r") == ["a", "b"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_private_address_is_refused_when_the_connection_is_made(idle, serving, host):
    async with serving(allow_private=False, retry_seconds=()):
        url = idle.receiver.url.replace("127.0.0.1", host)
        made = await idle.subscribe("r", url=f"{url}/r")
        await idle.post("a")
        found = await idle.until_subscription(made, lambda found: found.dead)
    assert "allow_private" in found.last_error
    assert idle.receiver.received["r"] == []


async def test_of_two_daemons_one_delivers_and_the_other_takes_over(idle, serving, nats):
    async def serve(owner, over, stop):
        async with serving(owner, over=over, silent_seconds=1):
            await stop.wait()

    first, second = anyio.Event(), anyio.Event()
    async with Bus.connect(nats) as other, anyio.create_task_group() as group:
        group.start_soon(serve, "one", idle.bus, first)
        made = await idle.subscribe("r")
        await idle.post("a")
        await idle.until_subscription(made, lambda found: found.delivered == 1)
        group.start_soon(serve, "two", other, second)
        await idle.post("b")
        await idle.until_subscription(made, lambda found: found.delivered == 2)
        (lease,) = await idle.rows("SELECT owner, epoch FROM lease")
        assert tuple(lease) == ("one", 1)
        first.set()
        await idle.post("c")
        await idle.until_subscription(made, lambda found: found.delivered == 3)
        (lease,) = await idle.rows("SELECT owner, epoch FROM lease")
        assert tuple(lease) == ("two", 2)
        second.set()
    assert [got.name for got in idle.receiver.received["r"]] == ["a", "b", "c"]


async def test_a_daemon_that_lost_the_lease_writes_nothing(idle, serving):
    idle.receiver.responses["r"] = iter([HOLD])
    async with serving(silent_seconds=60, drain_seconds=20):
        made = await idle.subscribe("r")
        await idle.post("a")
        await idle.receiver.until(lambda: idle.receiver.received["r"])
        await idle.rows("UPDATE lease SET owner = 'other', epoch = epoch + 1, seen_at = 'infinity'")
        idle.receiver.released.set()
    assert (await idle.subscribers.get(UUID(made.id))).delivered == 0


async def test_the_secret_is_encrypted_and_one_that_is_lost_harms_that_subscriber_alone(
    idle, serving, tmp_path
):
    lost = await idle.subscribe("lost")
    (row,) = await idle.rows("SELECT * FROM connection")
    assert row["name"] == f"subscription-{lost.id}"
    assert lost.secret not in str(dict(row))
    await idle.rows("UPDATE connection SET uri = 'https://elsewhere.example.com'")
    async with serving():
        await idle.subscribe("r")
        await idle.post("a")
        await idle.receiver.until(lambda: idle.receiver.names("r") == ["a"])
    assert idle.receiver.received["lost"] == []
    await idle.subscribers.delete(UUID(lost.id), None)
    assert len(await idle.rows("SELECT FROM connection")) == 1


async def test_without_subscriptions_no_daemon_delivers(harness):
    await harness.post("a")
    answer = await harness.bus.request(TEST, b"no id", 20)
    assert json.loads(answer)["delivered"] is False
    assert await harness.rows("SELECT FROM lease") == []


MOODS = st.lists(st.sampled_from([200, 200, 500, 404, DISCONNECT, (503, {"Retry-After": "0"})]))
FEW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_subscribers = iter(range(10_000))


@FEW
@given(moods=MOODS, events=st.integers(1, 6), ordered=st.booleans())
async def test_every_event_is_delivered_in_order_or_dead(harness, moods, events, ordered):
    name = f"p{next(_subscribers)}"
    harness.receiver.responses[name] = iter(moods)
    made = await harness.subscribe(name, ordered=ordered)
    names = [f"{number}" for number in range(events)]
    await harness.post(*names)
    found = await harness.until_subscription(
        made, lambda found: found.delivered + found.dead == events
    )
    rows = await harness.rows(
        "SELECT payload FROM dead_letter WHERE subject = $1 ORDER BY id", made.id
    )
    assert len(rows) == found.dead
    got = harness.receiver.names(name)
    assert len(got) == found.delivered
    if ordered:
        assert got == sorted(got, key=int)
        tries = [int(each.name) for each in harness.receiver.received[name]]
        assert tries == sorted(tries)
    assert found.waiting == 0
    await harness.subscribers.delete(UUID(made.id), None)
    harness.bus.publish("psf.ctl.subscriptions", b"")


async def test_a_subscription_goes_on_where_ids_jump(harness):
    """As they do where a slice of the log begins: 2^32 ids that no event has."""
    made = await harness.subscribe("r")
    await harness.post("a")
    await harness.receiver.until(lambda: len(harness.receiver.received["r"]) == 1)
    async with harness.database.connection() as connection:
        await connection.execute("SELECT open_slice('event'), setval('event_id', 1::bigint << 32)")
    await harness.post("b", "c")
    await harness.receiver.until(lambda: len(harness.receiver.received["r"]) == 3)
    assert harness.receiver.names("r") == ["a", "b", "c"]
    await harness.until_subscription(made, lambda found: found.delivered == 3)
