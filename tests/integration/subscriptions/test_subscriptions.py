"""Events reach those who want them at a URL: signed, in order, at least once, or are kept."""

import json
from uuid import UUID

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from receiver_rig import HANG, HOLD, LEAVE, MEET, QUICK, URI

from pubsubflow.bus import Bus
from pubsubflow.model.subscriptions import TEST
from pubsubflow.model.wire.commands import Resend

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_an_event_comes_as_a_signed_cloud_event(rig, mode):
    made = await rig.subscribe("r", mode=mode, dataset=URI)
    (event_id,) = await rig.post("żółw", part="2026-11 %", rows=3)
    await rig.receiver.until(lambda: rig.receiver.got["r"])
    (got,) = rig.receiver.got["r"]
    event = got.event
    assert got.webhook_id == f"{event_id}_{made.id}"
    assert (event.get_id(), event.get_source()) == (event_id, "/pubsubflow")
    assert event.get_type() == "org.pubsubflow.dataset.updated"
    assert event.get_subject() == URI
    assert event.get_attributes()["partitionkey"] == "2026-11 %"
    assert event.get_data() == {"name": "żółw", "part": "2026-11 %", "rows": 3}
    (row,) = await rig.rows("SELECT time FROM event")
    assert event.get_time() == row["time"]
    found = await rig.until(made, lambda found: found.delivered)
    assert (found.last_status, found.last_error, found.dead, found.waiting) == (200, None, 0, 0)


async def test_a_subscriber_gets_what_it_asked_for_alone(rig):
    await rig.subscribe("all")
    await rig.subscribe("pattern", dataset="s3://lake/*")
    await rig.subscribe("one", dataset=URI, where="event.extra.name != 'b'")
    await rig.subscribe("dag", dags=("nobodys",))
    await rig.post("a", "b")
    await rig.post("c", uri="s3://lake/rates")
    await rig.post("d", uri="s3://sea/orders/x")
    await rig.post("e")
    names = rig.receiver.names
    await rig.receiver.until(lambda: "e" in names("all") and "e" in names("one"))
    await rig.receiver.until(lambda: "e" in names("pattern"))
    assert names("all") == ["a", "b", "c", "d", "e"]
    assert names("pattern") == ["a", "b", "c", "e"]
    assert names("one") == ["a", "e"]
    assert names("dag") == []


async def test_what_was_recorded_before_is_not_delivered(rig):
    await rig.post("before")
    await rig.subscribe("r")
    await rig.post("after")
    await rig.receiver.until(lambda: rig.receiver.got["r"])
    assert rig.receiver.names("r") == ["after"]


async def test_in_order_an_event_that_is_not_taken_holds_back_the_next(rig):
    rig.receiver.moods["r"] = iter([200, 503, LEAVE, 301, 404])
    made = await rig.subscribe("r")
    await rig.post("a", "b", "c")
    await rig.receiver.until(lambda: "c" in rig.receiver.names("r"))
    assert [got.name for got in rig.receiver.got["r"]] == ["a", "b", "b", "b", "b", "b", "c"]
    assert len({got.webhook_id for got in rig.receiver.got["r"]}) == 3
    found = await rig.until(made, lambda found: found.delivered == 3)
    assert (found.dead, found.waiting) == (0, 0)


async def test_without_order_it_does_not_and_several_go_side_by_side(idle, serving):
    idle.receiver.moods["r"] = iter([503] + [MEET] * 4)
    async with serving(retry_seconds=(0.3,), parallel=4):
        made = await idle.subscribe("r", ordered=False)
        await idle.post(*"abcdefghij")
        await idle.receiver.until(lambda: len(idle.receiver.names("r")) == 10)
        assert idle.receiver.names("r")[-1] in [got.name for got in idle.receiver.got["r"][:4]]
        found = await idle.until(made, lambda found: found.delivered == 10)
    assert found.waiting == 0
    assert idle.receiver.most["r"] == 4


async def test_after_the_last_try_an_event_is_a_dead_letter_and_can_be_sent_again(idle, serving):
    idle.receiver.moods["r"] = iter([500] * 3)
    async with serving(retry_seconds=QUICK[:2]):
        made = await idle.subscribe("r")
        event_id, _ = await idle.post("a", "b")
        await idle.receiver.until(lambda: idle.receiver.names("r") == ["b"])
        found = await idle.until(made, lambda found: found.delivered == 1)
        assert (found.dead, found.waiting) == (1, 0)
        (letter,) = await idle.rows("SELECT * FROM dead_letter")
        assert (letter["kind"], letter["subject"]) == ("delivery", made.id)
        assert "3 attempts" in letter["reason"]
        assert "500 Internal Server Error: as it was told" in letter["reason"]
        held = json.loads(letter["payload"])
        assert held["event_id"] == event_id
        assert (held["attempts"], held["last_status"]) == (3, 500)
        await idle.manager.call(Resend(letter["id"]))
        await idle.receiver.until(lambda: idle.receiver.names("r") == ["b", "a"])
    assert len({got.webhook_id for got in idle.receiver.got["r"] if got.name == "a"}) == 1


async def test_a_receiver_that_is_gone_is_left_alone_until_somebody_resumes_it(rig):
    rig.receiver.moods["r"] = iter([200, 410])
    made = await rig.subscribe("r")
    await rig.post("a", "b", "c")
    found = await rig.until(made, lambda found: found.state == "gone")
    assert "410 Gone" in found.reason
    await rig.subscribe("other")
    await rig.post("d")
    await rig.receiver.until(lambda: rig.receiver.names("other") == ["d"])
    assert rig.receiver.names("r") == ["a"]
    await rig.subscribers.change(UUID(made.id), "active", None)
    rig.bus.publish("psf.ctl.subscriptions", b"")
    await rig.receiver.until(lambda: rig.receiver.names("r") == ["a", "b", "c", "d"])


async def test_a_receiver_that_hangs_delays_nobody_else(idle, serving):
    async with serving(timeout_seconds=60):
        idle.receiver.moods["slow"] = iter([HANG])
        await idle.subscribe("slow")
        await idle.subscribe("dead", url="http://127.0.0.1:1/")
        await idle.subscribe("quick")
        await idle.post(*"abc")
        await idle.receiver.until(lambda: idle.receiver.got["slow"])
        await idle.receiver.until(lambda: idle.receiver.names("quick") == ["a", "b", "c"])
    assert len(idle.receiver.got["slow"]) == 1


async def test_a_paused_subscriber_gets_its_events_when_it_is_resumed(rig):
    made = await rig.subscribe("r")
    await rig.subscribe("other")
    await rig.post("a")
    await rig.until(made, lambda found: found.delivered == 1)
    for state in ("paused", "active"):
        await rig.subscribers.change(UUID(made.id), state, None)
        rig.bus.publish("psf.ctl.subscriptions", b"")
        if state == "paused":
            await rig.post("b")
            await rig.receiver.until(lambda: rig.receiver.names("other") == ["a", "b"])
    await rig.receiver.until(lambda: rig.receiver.names("r") == ["a", "b"])


async def test_an_event_that_commits_late_keeps_its_place(rig):
    """Its number was taken before that of an event that is recorded already."""
    await rig.subscribe("r")
    async with rig.database.connection() as connection:
        async with connection.transaction():
            await connection.fetch(
                "SELECT 1 WHERE EXISTS (SELECT FROM event_wait WHERE dataset = 0)"
            )
            late = await connection.fetchval("SELECT nextval('event_id')")
            (first,) = await rig.post("b")
            await rig.until_looked()
            assert rig.receiver.got["r"] == []
            await connection.execute(
                "INSERT INTO event (id, event_id, dataset, extra, time, source) SELECT $1,"
                " gen_random_uuid(), dataset, '{\"name\": \"a\"}', time, 'api' FROM event"
                " WHERE event_id = $2",
                late, UUID(first),
            )  # fmt: skip
        await rig.receiver.until(lambda: len(rig.receiver.got["r"]) == 2)
    assert rig.receiver.names("r") == ["a", "b"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_private_address_is_refused_when_the_connection_is_made(idle, serving, host):
    async with serving(allow_private=False, retry_seconds=()):
        url = idle.receiver.url.replace("127.0.0.1", host)
        made = await idle.subscribe("r", url=f"{url}/r")
        await idle.post("a")
        found = await idle.until(made, lambda found: found.dead)
    assert "allow_private" in found.last_error
    assert idle.receiver.got["r"] == []


async def test_of_two_daemons_one_delivers_and_the_other_takes_over(idle, serving, nats):
    async def serve(owner, over, stop):
        async with serving(owner, over=over, silent_seconds=1):
            await stop.wait()

    first, second = anyio.Event(), anyio.Event()
    async with Bus.connect(nats) as other, anyio.create_task_group() as group:
        group.start_soon(serve, "one", idle.bus, first)
        made = await idle.subscribe("r")
        await idle.post("a")
        await idle.until(made, lambda found: found.delivered == 1)
        group.start_soon(serve, "two", other, second)
        await idle.post("b")
        await idle.until(made, lambda found: found.delivered == 2)
        (lease,) = await idle.rows("SELECT owner, epoch FROM lease")
        assert tuple(lease) == ("one", 1)
        first.set()
        await idle.post("c")
        await idle.until(made, lambda found: found.delivered == 3)
        (lease,) = await idle.rows("SELECT owner, epoch FROM lease")
        assert tuple(lease) == ("two", 2)
        second.set()
    assert [got.name for got in idle.receiver.got["r"]] == ["a", "b", "c"]


async def test_whoever_lost_the_lease_writes_nothing(idle, serving):
    idle.receiver.moods["r"] = iter([HOLD])
    async with serving(silent_seconds=60, drain_seconds=20):
        made = await idle.subscribe("r")
        await idle.post("a")
        await idle.receiver.until(lambda: idle.receiver.got["r"])
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
    assert idle.receiver.got["lost"] == []
    await idle.subscribers.remove(UUID(lost.id), None)
    assert len(await idle.rows("SELECT FROM connection")) == 1


async def test_where_nobody_subscribes_nobody_delivers(rig):
    await rig.post("a")
    answer = await rig.bus.request(TEST, b"no id", 20)
    assert json.loads(answer)["delivered"] is False
    assert await rig.rows("SELECT FROM lease") == []


MOODS = st.lists(st.sampled_from([200, 200, 500, 404, LEAVE, (503, {"Retry-After": "0"})]))
FEW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_subscribers = iter(range(10_000))


@FEW
@given(moods=MOODS, events=st.integers(1, 6), ordered=st.booleans())
async def test_every_event_is_delivered_in_order_or_dead(rig, moods, events, ordered):
    name = f"p{next(_subscribers)}"
    rig.receiver.moods[name] = iter(moods)
    made = await rig.subscribe(name, ordered=ordered)
    names = [f"{number}" for number in range(events)]
    await rig.post(*names)
    found = await rig.until(made, lambda found: found.delivered + found.dead == events)
    rows = await rig.rows("SELECT payload FROM dead_letter WHERE subject = $1 ORDER BY id", made.id)
    assert len(rows) == found.dead
    got = rig.receiver.names(name)
    assert len(got) == found.delivered
    if ordered:
        assert got == sorted(got, key=int)
        tries = [int(each.name) for each in rig.receiver.got[name]]
        assert tries == sorted(tries)
    assert found.waiting == 0
    await rig.subscribers.remove(UUID(made.id), None)
    rig.bus.publish("psf.ctl.subscriptions", b"")
