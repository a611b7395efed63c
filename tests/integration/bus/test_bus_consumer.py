"""The pull consumer: continuous pulling within the credit."""

import json

import anyio
import pytest

from pubsubflow.bus import STREAM_IN, STREAM_TASK, Bus, PullConsumer
from pubsubflow.bus.leftovers import remove_leftovers
from support.signals import CallRecorder

pytestmark = pytest.mark.anyio


def ack(delivery):
    delivery.ack()


@pytest.fixture
def stopping():
    return anyio.Event()


@pytest.fixture
def pull(bus, group, stopping):
    """Start a consumer of the inbound stream."""

    async def start(deliver, *, on=bus, credit=0, durable="manager", **settings):
        consumer = PullConsumer(
            on,
            stream=settings.pop("stream", STREAM_IN),
            durable=durable,
            filter_subject=settings.pop("filter_subject", "psf.in.>"),
            deliver=deliver,
            **settings,
        )
        await group.start(consumer.run, stopping)
        consumer.credit(credit)
        return consumer

    return start


async def fill(bus, count, start=0):
    async with anyio.create_task_group() as group:
        for number in range(start, start + count):
            group.start_soon(bus.publish_durable, "psf.in.result.0", b"%d" % number)


def numbers(deliveries):
    return [int(delivery.data) for delivery in deliveries]


async def settled(bus, *, held, waiting):
    """Return when the consumer holds so many unacknowledged and so many wait (acks are async)."""
    with anyio.fail_after(20):
        while True:
            answer = await bus.request(f"$JS.API.CONSUMER.INFO.{STREAM_IN}.manager", b"", 5)
            info = json.loads(answer)
            if (info["num_ack_pending"], info["num_pending"]) == (held, waiting):
                return


async def test_messages_come_in_stream_order_and_acks_empty_the_queue(bus, pull, collector):
    await fill(bus, 3_000)
    got = collector(ack)
    await pull(got, credit=10_000)
    await fill(bus, 3_000, start=3_000)
    await got.wait_for(6_000)
    assert numbers(got.items) == list(range(6_000))
    await settled(bus, held=0, waiting=0)


async def test_a_delivery_tells_what_it_is(bus, pull, collector):
    await bus.publish_durable("psf.in.event.3", b"body", message_id="x1")
    got = collector(ack)
    await pull(got, credit=1)
    delivery = (await got.wait_for(1))[0]
    assert (delivery.subject, delivery.data) == ("psf.in.event.3", b"body")
    assert (delivery.attempts, delivery.stream_seq) == (1, 1)
    assert delivery.headers == {"Nats-Msg-Id": "x1"}
    assert delivery.timestamp.tzinfo is not None


async def test_credit_is_never_exceeded_and_never_idle(bus, pull, collector):
    await fill(bus, 100)
    got = collector(ack)
    consumer = await pull(got)
    await bus.flush()
    assert got.items == []
    for credit in (1, 1, 5, 20, 1, 40):
        before = len(got.items)
        consumer.credit(credit)
        await got.wait_for(before + credit)
        await bus.flush()
        assert len(got.items) == before + credit
    await settled(bus, held=0, waiting=32)


async def test_credit_returned_one_by_one_costs_few_requests(bus, pull, collector):
    requests = collector()
    await bus.subscribe("$JS.API.CONSUMER.MSG.NEXT.>", requests)
    await fill(bus, 2_000)
    got = collector(ack)
    consumer = await pull(got, credit=100)
    for seen in range(1, 2_001):
        await got.wait_for(seen)
        consumer.credit(1)
    assert len(requests.items) < 2_000 / 20


async def test_unacknowledged_comes_again_after_the_ack_wait(bus, pull, collector):
    await fill(bus, 1)
    got = collector()
    await pull(got, credit=10, ack_wait_seconds=0.2)
    first, second = await got.wait_for(2)
    assert (first.attempts, second.attempts) == (1, 2)
    second.ack()


async def test_in_progress_holds_a_message_past_the_ack_wait(bus, pull, collector):
    await fill(bus, 1)
    got = collector()
    await pull(got, credit=10, ack_wait_seconds=1)
    delivery = (await got.wait_for(1))[0]
    started = anyio.current_time()
    while anyio.current_time() - started < 2:
        delivery.in_progress()
        await anyio.sleep(0.1)
    assert len(got.items) == 1
    delivery.ack()


async def test_nak_returns_at_once_or_after_its_delay(bus, pull, collector):
    await fill(bus, 1)
    got = collector()
    await pull(got, credit=10)
    started = anyio.current_time()
    (await got.wait_for(1))[0].nak()
    await got.wait_for(2)
    assert anyio.current_time() - started < 3
    started = anyio.current_time()
    got.items[1].nak(0.4)
    (await got.wait_for(3))[2].ack()
    assert 0.35 < anyio.current_time() - started < 5


async def test_term_removes_for_good(bus, pull, collector):
    await fill(bus, 1)
    got = collector(lambda delivery: delivery.term())
    await pull(got, credit=10, ack_wait_seconds=0.2)
    await got.wait_for(1)
    await settled(bus, held=0, waiting=0)


async def test_two_consumers_share_a_durable(server, bus, pull, collector):
    seen = collector(ack)
    one, two = collector(seen), collector(seen)
    async with Bus.connect(server.settings) as other:
        first = await pull(one, credit=50)
        second = await pull(two, on=other, credit=50)
        await fill(bus, 100)
        await seen.wait_for(100)
        first.credit(500)
        second.credit(500)
        await fill(bus, 1_000, start=100)
        await seen.wait_for(1_100)
    assert sorted(numbers(seen.items)) == list(range(1_100))
    assert len(one.items) >= 50
    assert len(two.items) >= 50


async def test_a_restarted_server_goes_on_delivering(server, bus, pull, collector):
    await fill(bus, 10)
    got = collector(ack)
    await pull(got, credit=100_000)
    await got.wait_for(10)
    for round_number in range(1, 4):
        server.kill()
        server.start()
        await bus.publish_durable("psf.in.result.0", b"%d" % round_number)
        await got.wait_for(10 + round_number)


async def test_credit_holds_over_a_restart(server, bus, pull, collector):
    got = collector(ack)
    consumer = await pull(got, credit=3)
    server.kill()
    server.start()
    await fill(bus, 10)
    await got.wait_for(3)
    await bus.flush()
    assert len(got.items) == 3
    consumer.credit(7)
    await got.wait_for(10)


async def test_a_deleted_consumer_is_made_again(bus, pull, collector):
    got = collector(ack)
    await pull(got, credit=100)
    await fill(bus, 1)
    await got.wait_for(1)
    await bus.request(f"$JS.API.CONSUMER.DELETE.{STREAM_IN}.manager", b"", 5)
    await fill(bus, 5)
    await got.wait_for(6, 3)


async def test_a_deleted_stream_is_made_again(bus, pull, collector):
    got = collector(ack)
    await pull(got, credit=100)
    await fill(bus, 1)
    await got.wait_for(1)
    await bus.request(f"$JS.API.STREAM.DELETE.{STREAM_IN}", b"", 5)
    await fill(bus, 1)
    await got.wait_for(2, 3)


async def test_a_lost_request_is_noticed_by_silence(bus, pull, collector, monkeypatch):
    monkeypatch.setattr("pubsubflow.bus.consumer._SILENCE_SECONDS", 0.2)
    got = collector(ack)
    consumer = await pull(got)
    consumer._next_subject = "psf.ctl.black-hole"
    async with await bus.subscribe("psf.ctl.black-hole", collector()):
        consumer.credit(5)
        await bus.flush()
        consumer._next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM_IN}.manager"
        await fill(bus, 5)
        await got.wait_for(5)


async def test_expired_requests_are_renewed_with_the_same_credit(bus, pull, collector, monkeypatch):
    monkeypatch.setattr("pubsubflow.bus.consumer._EXPIRES_SECONDS", 0.15)
    requests = collector()
    await bus.subscribe("$JS.API.CONSUMER.MSG.NEXT.>", requests)
    got = collector(ack)
    await pull(got, credit=7)
    await requests.wait_for(4)
    await fill(bus, 20)
    await got.wait_for(7)
    await bus.flush()
    assert len(got.items) == 7


async def test_stopping_gives_back_what_is_on_its_way_and_leaves_the_rest(bus, collector):
    stopping = anyio.Event()
    got = collector()
    stopped = anyio.Event()
    consumer = PullConsumer(
        bus, stream=STREAM_IN, durable="manager", filter_subject="psf.in.>", deliver=got
    )

    async def run(*, task_status):
        await consumer.run(stopping, task_status=task_status)
        stopped.set()

    async with anyio.create_task_group() as group:
        await group.start(run)
        consumer.credit(2)
        await fill(bus, 2)
        await got.wait_for(2)
        consumer.credit(500)
        await fill(bus, 500, start=2)
        stopping.set()
    assert stopped.is_set()
    kept = len(got.items)
    await bus.flush()
    assert len(got.items) == kept
    for delivery in got.items:
        delivery.ack()
    again = collector(ack)
    second = PullConsumer(
        bus, stream=STREAM_IN, durable="manager", filter_subject="psf.in.>", deliver=again
    )
    async with anyio.create_task_group() as group:
        await group.start(second.run, anyio.Event())
        second.credit(1_000)
        await again.wait_for(502 - kept, 3)
        group.cancel_scope.cancel()
    assert sorted(numbers(again.items + got.items)) == list(range(502))


async def test_reset_consumer_delivers_the_unacknowledged_at_once(bus, pull, collector):
    got = collector()
    await fill(bus, 3)
    await pull(got, credit=100, ack_wait_seconds=60)
    await got.wait_for(3)
    await bus.reset_consumer(STREAM_IN, "manager")
    await got.wait_for(6, 3)
    assert sorted(numbers(got.items)) == [0, 0, 1, 1, 2, 2]


async def test_reset_of_an_unknown_consumer_or_stream_is_nothing(bus):
    await bus.reset_consumer(STREAM_TASK, "nobody")


async def test_what_deliver_raises_ends_the_service(bus, collector):
    def fail(delivery):
        raise ZeroDivisionError

    consumer = PullConsumer(
        bus, stream=STREAM_IN, durable="manager", filter_subject="psf.in.>", deliver=fail
    )
    consumer.credit(1)
    await bus.publish_durable("psf.in.result.0", b"1")
    with pytest.raises(ExceptionGroup) as caught:
        await consumer.run(anyio.Event())
    assert caught.group_contains(ZeroDivisionError)


async def test_a_queue_each_has_its_own_consumer(bus, pull, collector):
    fast, slow = collector(ack), collector(ack)
    for durable, got in (("fast", fast), ("slow", slow)):
        await pull(
            got,
            credit=10,
            durable=durable,
            stream=STREAM_TASK,
            filter_subject=f"psf.task.{durable}.>",
        )
    await bus.publish_durable("psf.task.slow.1.t.1", b"1")
    await bus.publish_durable("psf.task.fast.1.t.1", b"2")
    assert numbers(await slow.wait_for(1)) == [1]
    assert numbers(await fast.wait_for(1)) == [2]


async def test_nothing_that_waits_is_taken_for_a_leftover(bus, pull):
    """Neither what is delivered and not acknowledged, nor what has no consumer yet."""
    got = CallRecorder()
    await pull(got, credit=4)
    await fill(bus, 6)
    for delivery in (await got.wait_for(4))[:3]:
        delivery.ack()
    await settled(bus, held=1, waiting=2)
    await bus.publish_durable("psf.task.nobody.sync.1", b"order")
    assert await remove_leftovers(bus) == 0
    await settled(bus, held=1, waiting=2)
    info = json.loads(await bus.request(f"$JS.API.STREAM.INFO.{STREAM_TASK}", b"", 5))
    assert info["state"]["messages"] == 1


@pytest.fixture
def ranked(pull):
    """Start a consumer with a rank."""

    async def start(rank, got, *, credit, on):
        consumer = await pull(got, on=on, durable="managers", ranked=True)
        consumer.rank = rank
        consumer.credit(credit)
        await on.flush()
        return consumer

    return start


async def test_one_client_gets_all_the_next_what_is_more_and_all_a_backlog(
    server, bus, ranked, collector
):
    seen = collector(ack)
    first, second, third = collector(seen), collector(seen), collector(seen)
    async with Bus.connect(server.settings) as other:
        # Who came first does not count.
        await ranked(2, third, credit=1_000, on=other)
        consumer = await ranked(0, first, credit=1_000, on=bus)
        await ranked(1, second, credit=30, on=other)
        shares = []
        for start, count in ((0, 50), (50, 30), (80, 50), (130, 20)):
            await fill(bus, count, start=start)
            await seen.wait_for(start + count)
            shares.append([len(each.items) for each in (first, second, third)])
        assert shares == [[50, 0, 0], [50, 30, 0], [50, 30, 50], [60, 30, 60]]
        # As a manager does that has committed.
        consumer.credit(60)
        await bus.flush()
        await fill(bus, 50, start=150)
        await first.wait_for(110)


async def test_the_next_rank_takes_over_at_once_when_a_connection_is_gone(
    server, bus, ranked, collector
):
    first, second = collector(ack), collector(ack)
    await ranked(1, second, credit=100, on=bus)
    async with Bus.connect(server.settings) as gone:
        await ranked(0, first, credit=100, on=gone)
        await fill(bus, 10)
        await first.wait_for(10)
    await fill(bus, 10, start=10)
    await second.wait_for(10)
    assert len(first.items) == 10


async def test_what_hangs_keeps_the_messages_of_one_request_until_they_are_due_again(
    server, bus, ranked, collector
):
    """A process that is stopped has a connection still, so it is sent what it requested."""
    hung, second = collector(), collector(ack)
    async with Bus.connect(server.settings) as other:
        await ranked(0, hung, credit=5, on=other)
        await ranked(1, second, credit=100, on=bus)
        await fill(bus, 8)
        await hung.wait_for(5)
        await second.wait_for(3)
        for delivery in hung.items:
            delivery.nak()
        await second.wait_for(8)
        assert len(hung.items) == 5


async def test_clients_of_a_version_without_ranks_are_served_beside_those_that_have_one(
    server, bus, pull, ranked, collector
):
    seen = collector(ack)
    old, new = collector(seen), collector(seen)
    async with Bus.connect(server.settings) as other:
        plain = await pull(old, on=other, durable="managers")
        # This sets up the consumer anew, and the former client's next request is refused.
        first = await ranked(0, new, credit=0, on=bus)
        for count in range(1, 21):
            plain.credit(5)
            first.credit(5)
            await fill(bus, 10, start=10 * (count - 1))
            await seen.wait_for(10 * count)
    assert sorted(numbers(seen.items)) == list(range(200))
    assert len(old.items) == len(new.items) == 100
