"""Another session of Postgres holds a lock: callers are refused soon, and messages wait."""

from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import asyncpg
import msgspec
import pytest
from msgspec.structs import replace

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/datasets/events"
A = "s3://lake/a"


@pytest.fixture
async def postgres(postgres):
    return replace(postgres, lock_seconds=0.2)


@pytest.fixture
def locked(postgres):
    @asynccontextmanager
    async def lock(table):
        connection = await asyncpg.connect(postgres.url)
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table}")
                yield
        finally:
            await connection.close()

    return lock


async def test_a_post_is_503_while_a_table_is_locked_and_recorded_once_afterwards(harness, locked):
    async with locked("event"):
        with anyio.fail_after(10):
            for _ in range(2):
                async with harness.session.post(
                    harness.url + EVENTS, json={"dataset": A}, headers={"Idempotency-Key": "k"}
                ) as response:
                    problem = await response.json()
                    assert (response.status, response.headers["Retry-After"]) == (503, "1")
                    assert "lock" in problem["detail"]
            await harness.get(EVENTS, status=503)
    await harness.request(
        "POST", EVENTS, json={"dataset": A}, headers={"Idempotency-Key": "k"}, status=202
    )
    assert len((await harness.get(EVENTS))["items"]) == 1


async def test_what_tasks_send_waits_for_the_lock(harness, locked, bus):
    async with locked("event"):
        event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": A}
        await bus.publish_durable("psf.in.event.0", msgspec.json.encode(event), message_id="m")
        await harness.post(EVENTS, {"dataset": A}, status=503)
        await harness.post(EVENTS, {"dataset": A}, status=503)
    with anyio.fail_after(30):
        while not (await harness.get(EVENTS))["items"]:
            await anyio.lowlevel.checkpoint()
    assert len((await harness.get(EVENTS))["items"]) == 1
