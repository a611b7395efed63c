"""Three servers, streams on each: one may die."""

import anyio
import msgspec
import pytest

from pubsubflow.bus import STREAM_IN, Bus, PullConsumer

pytestmark = pytest.mark.anyio


@pytest.fixture
def cluster(make_server, free_ports):
    servers = [make_server() for _ in range(3)]
    routes = free_ports(3)
    for server, route in zip(servers, routes, strict=True):
        peers = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        server.lines.append(
            f"server_name: n{route}\n"
            f'cluster {{ name: psf, listen: "127.0.0.1:{route}", routes: [{peers}] }}'
        )
        server.start()
    return servers


async def test_the_server_we_speak_to_may_die(cluster, collector):
    url = ",".join(server.url for server in cluster)
    settings = msgspec.structs.replace(cluster[0].settings, url=url, replicas=3)
    got = collector(lambda delivery: delivery.ack())
    done = collector()
    total = 2_000
    async with Bus.connect(settings) as bus, anyio.create_task_group() as group:
        await bus.ensure_streams()
        consumer = PullConsumer(
            bus, stream=STREAM_IN, durable="manager", filter_subject="psf.in.>", deliver=got
        )
        await group.start(consumer.run, anyio.Event())
        consumer.credit(100_000)
        for number in range(total):
            bus.publish_durable_nowait(
                "psf.in.result.0", b"%d" % number, message_id=f"m{number}", on_done=done
            )
            if number == total // 2:
                await done.wait_for(100)
                port = bus.client.connected_url.port
                next(server for server in cluster if server.port == port).kill()
        await done.wait_for(total, 30)
        with anyio.fail_after(30):
            while len({delivery.data for delivery in got.items}) < total:
                await got.wait_for(len(got.items) + 1, 30)
        group.cancel_scope.cancel()
