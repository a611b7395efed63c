"""Connecting, losing the connection, plain messages."""

import anyio
import msgspec
import pytest
import structlog

from pubsubflow.bus import Bus, BusSettings
from pubsubflow.errors import BusUnavailable, ConfigError, MessageRefused

pytestmark = pytest.mark.anyio


async def test_nobody_listening_is_told_in_one_line_within_the_time_limit(make_server):
    settings = BusSettings(url=make_server().url, connect_seconds=0.2)
    started = anyio.current_time()
    with pytest.raises(BusUnavailable, match=r"no NATS server answers at 127\.0\.0\.1:\d+ within"):
        async with Bus.connect(settings):
            pass
    assert anyio.current_time() - started < 1


async def test_wrong_token_says_to_check_it(server):
    settings = msgspec.structs.replace(server.settings, token="wrong")
    with pytest.raises(ConfigError, match="check the token"):
        async with Bus.connect(settings):
            pass


@pytest.mark.parametrize("url", ["", "nats://", "nats://host:port"])
async def test_malformed_address_is_a_config_error(url):
    with pytest.raises(ConfigError):
        async with Bus.connect(BusSettings(url=url)):
            pass


async def test_missing_tls_file_is_a_config_error(server):
    settings = msgspec.structs.replace(server.settings, tls_ca_file="/nowhere/ca.pem")
    with pytest.raises(ConfigError, match="TLS"):
        async with Bus.connect(settings):
            pass


async def test_a_server_that_starts_late_is_waited_for(make_server, group):
    server = make_server()

    async def connect(*, task_status=anyio.TASK_STATUS_IGNORED):
        task_status.started()
        async with Bus.connect(server.settings) as bus:
            assert bus.connected
        connected.set()

    connected = anyio.Event()
    await group.start(connect)
    server.start()
    with anyio.fail_after(20):
        await connected.wait()


async def test_one_of_several_addresses_suffices(server, make_server):
    settings = msgspec.structs.replace(server.settings, url=f"{make_server().url}, {server.url}")
    async with Bus.connect(settings) as bus:
        assert bus.connected
        assert bus.max_payload == 262144


async def test_errors_of_the_body_are_not_wrapped(server):
    with pytest.raises(ZeroDivisionError):
        async with Bus.connect(server.settings):
            raise ZeroDivisionError


async def test_reconnects_subscribes_again_and_logs_each_once(server, bus, collector):
    got = collector()
    await bus.subscribe("psf.hb.*", got)
    with structlog.testing.capture_logs() as logs:
        server.kill()
        while bus.connected:
            await anyio.lowlevel.checkpoint()
        bus.publish("psf.hb.a", b"sent while away")
        server.start()
        with anyio.fail_after(10):
            await bus.wait_connected()
        await bus.flush()
    events = [entry["event"] for entry in logs if entry["log_level"] != "debug"]
    assert events == ["bus.disconnected", "bus.reconnected"]
    assert [message.data for message in await got.wait_for(1)] == [b"sent while away"]


async def test_a_request_in_flight_fails_when_the_connection_breaks(server, bus, collector):
    requests = collector()
    await bus.subscribe("psf.req.mute", requests)

    async def kill():
        await requests.wait_for(1)
        server.kill()

    async with anyio.create_task_group() as group:
        group.start_soon(kill)
        with pytest.raises(BusUnavailable, match="broke"):
            await bus.request("psf.req.mute", b"", 60)


async def test_disconnected_publishing_is_bounded(server):
    settings = msgspec.structs.replace(server.settings, buffer_bytes=100_000)
    async with Bus.connect(settings) as bus:
        server.kill()
        while bus.connected:
            await anyio.lowlevel.checkpoint()
        for _ in range(10):
            bus.publish("psf.hb.a", bytes(10_000))
        with pytest.raises(BusUnavailable, match="wait for NATS"):
            bus.publish("psf.hb.a", b"")


async def test_a_subscription_is_with_the_server_on_return(server, bus, collector):
    async with Bus.connect(server.settings) as other:
        for number in range(50):
            got = collector()
            async with await bus.subscribe(f"psf.ctl.{number}", got):
                other.publish(f"psf.ctl.{number}", b"now")
                await got.wait_for(1)


async def test_request_and_respond(bus):
    async with await bus.subscribe(
        "psf.req.twice", lambda message: message.respond(message.data * 2)
    ):
        assert await bus.request("psf.req.twice", b"ab", 5) == b"abab"


async def test_request_to_nobody_and_to_a_mute_one(bus, collector):
    with pytest.raises(BusUnavailable, match="no responder"):
        await bus.request("psf.req.nobody", b"", 5)
    async with await bus.subscribe("psf.req.mute", collector()):
        with pytest.raises(BusUnavailable, match="no reply"):
            await bus.request("psf.req.mute", b"", 0.05)


async def test_queue_subscribers_share(bus, collector):
    one, two = collector(), collector()
    async with (
        await bus.subscribe("psf.ctl.q", one, queue="g"),
        await bus.subscribe("psf.ctl.q", two, queue="g"),
    ):
        for _ in range(40):
            bus.publish("psf.ctl.q", b"")
        await bus.flush()
    assert len(one.items) + len(two.items) == 40


async def test_unsubscribed_gets_nothing_more(bus, collector):
    got = collector()
    subscription = await bus.subscribe("psf.ctl.u", got)
    subscription.unsubscribe()
    bus.publish("psf.ctl.u", b"")
    await bus.flush()
    assert got.items == []


async def test_order_and_headers_arrive(bus, collector):
    got = collector()
    async with await bus.subscribe("psf.log.>", got):
        for number in range(2_000):
            bus.publish(f"psf.log.{number}", b"%d" % number, {"n": str(number), "colour": "żółty"})
        await got.wait_for(2_000)
    assert [int(message.data) for message in got.items] == list(range(2_000))
    assert got.items[7].headers == {"n": "7", "colour": "żółty"}
    assert got.items[7].subject == "psf.log.7"


async def test_a_failing_handler_is_logged_and_harms_nobody(bus, collector):
    def fail(message):
        raise ZeroDivisionError

    got = collector()
    with structlog.testing.capture_logs() as logs:
        async with await bus.subscribe("psf.ctl.x", fail), await bus.subscribe("psf.ctl.x", got):
            bus.publish("psf.ctl.x", b"")
            await got.wait_for(1)
            await bus.flush()
    assert [entry["event"] for entry in logs] == ["bus.handler_failed"]


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b 0"])
async def test_malformed_subjects_are_refused(bus, subject):
    with pytest.raises(MessageRefused):
        bus.publish(subject, b"")


async def test_malformed_headers_are_refused(bus):
    with pytest.raises(MessageRefused):
        bus.publish("psf.ctl.a", b"", {"a\r\nb": "c"})
    with pytest.raises(MessageRefused):
        bus.publish("psf.ctl.a", b"", {"a": "c\r\nd"})


async def test_too_large_is_refused_and_large_arrives(bus, collector):
    got = collector()
    with pytest.raises(MessageRefused, match="larger than the limit of NATS"):
        bus.publish("psf.ctl.big", bytes(bus.max_payload + 1))
    async with await bus.subscribe("psf.ctl.big", got):
        payload = bytes(range(256)) * (bus.max_payload // 256)
        bus.publish("psf.ctl.big", payload)
        assert (await got.wait_for(1))[0].data == payload


async def test_an_answer_counts_as_the_pong_of_a_ping(bus):
    client = bus.client
    await bus.flush()
    client._pings_outstanding = 1
    await client._send_ping()
    assert (client._pongs, client._pings_outstanding) == ([], 0)
    client._pings_outstanding = 2
    await bus.request("$JS.API.INFO", b"", 5)
    assert client._pings_outstanding == 0
    client.answered_at -= client.options["ping_interval"]
    await client._send_ping()
    assert len(client._pongs) == 1
