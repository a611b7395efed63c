"""Worker in a process of its own, for tests that kill it."""

import sys
from pathlib import Path

import anyio
import msgspec

from pubsubflow.bus import Bus, BusSettings
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.worker import Worker, WorkerSettings


async def main():
    bus_settings = msgspec.json.decode(sys.argv[1], type=BusSettings)
    settings = msgspec.json.decode(sys.argv[2], type=WorkerSettings)
    async with (
        Bus.connect(bus_settings) as bus,
        ForkServer.start() as fork_server,
        anyio.create_task_group() as group,
    ):
        cache = BundleCache(Path(sys.argv[3]))
        worker = Worker(
            bus=bus, fork_server=fork_server, settings=settings, cache=cache, worker_id="hosted"
        )
        await group.start(worker.run, anyio.Event())
        print("up", flush=True)


anyio.run(main)
