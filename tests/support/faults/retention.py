"""A campaign of retention: events at speed, kept for seconds, beside runs whose hops are timed."""

import random
import time
from statistics import median, quantiles

import anyio
import asyncpg
from msgspec import Struct

from pubsubflow.manager import Sweeper, SweeperSettings
from pubsubflow.model.wire.commands import RecordEvents
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.retention import Pruner, RetentionService, RetentionSettings
from support.harness import ManagerHarness, chain_of
from support.specs import dag, task, uri

_BATCH = 100
_POSTERS = 4
_HOP_PAUSE_SECONDS = 0.05
_DAY_SECONDS = 86_400


class RetentionReport(Struct):
    """The figures of a campaign.

    Attributes:
        rate: Events a second.
        sizes: MiB of the database, sampled at equal intervals.
        hops_before, hops_after: Milliseconds from a posted event to the order of its run, median
            and 99th percentile, without retention and with it.
        partitions: Partitions at the end.
    """

    seconds: float
    events: int
    runs: int
    rate: int
    sizes: list[float]
    hops_before: tuple[float, float]
    hops_after: tuple[float, float]
    partitions: int
    left_events: int


class Campaign:
    """Posts events at a steady rate, and times hops beside.

    Args:
        harness: A manager, and a worker that does its tasks at once.
        url: Of the database, for samples of its size.
        kept_seconds: Retention of everything.
        rate: Events a second; below what saturates the machine, or hops show queues alone.
        seed: Of the datasets that events are posted to.
    """

    def __init__(
        self, harness: ManagerHarness, url: str, *, kept_seconds: float, rate: int, seed: int
    ) -> None:
        self._harness = harness
        self._url = url
        self._kept_seconds = kept_seconds
        self._rate = rate
        self._random = random.Random(seed)
        self._hops: list[float] = []
        self._sizes: list[float] = []
        self._events = 0

    async def run(self, *, events: int, before: int) -> RetentionReport:
        """Post events with retention, after some without, for comparison.

        Args:
            events: Number of events with retention.
            before: Number of events without.
        """
        harness = self._harness
        await harness.load(
            dag("timed", task("t"), on="timed", max_active_runs=1000),
            dag("rare", task("t"), on="rare", max_active_runs=1000),
            dag("waiting", task("t"), on="once & never"),  # keeps its first event for good
        )
        harness.automatic = chain_of
        await harness.post("once1")
        await self._post_until(before)
        hops_before, self._hops = self._hops, []
        service = RetentionService(Pruner(harness.database, self._settings()), every_seconds=0.5)
        # It removes old rows of the change log.
        sweeping = SweeperSettings(history_hours=self._kept_seconds / 3600)
        sweeper = Sweeper(database=harness.database, bus=harness.bus, settings=sweeping)
        stopping = anyio.Event()
        since = time.monotonic()
        async with anyio.create_task_group() as group:
            await group.start(service.run, stopping)
            await group.start(sweeper.run, stopping)
            group.start_soon(self._sample, stopping)
            await self._post_until(before + events)
            seconds = time.monotonic() - since
            stopping.set()
        await harness.quiet()
        return RetentionReport(
            seconds=round(seconds, 1),
            events=self._events,
            runs=await harness.value("SELECT count(*) FROM run"),
            rate=round(events / seconds),
            sizes=self._sizes,
            hops_before=_spread(hops_before),
            hops_after=_spread(self._hops),
            partitions=await harness.value(
                "SELECT count(*) FROM pg_inherits JOIN pg_class ON oid = inhrelid"
                " WHERE relkind = 'r'"
            ),
            left_events=await harness.value("SELECT count(*) FROM event"),
        )

    def _settings(self) -> RetentionSettings:
        days = self._kept_seconds / _DAY_SECONDS
        names = ("events", "runs", "attempts", "logs", "results", "keys")
        return RetentionSettings(**{f"{name}_days": days for name in names})

    async def _post_until(self, events: int) -> None:
        begin, first = anyio.current_time(), self._events
        async with anyio.create_task_group() as timing:
            timing.start_soon(self._time_hops)
            async with anyio.create_task_group() as posting:
                for _ in range(_POSTERS):
                    posting.start_soon(self._post, events, begin, first)
            timing.cancel_scope.cancel()

    async def _post(self, until: int, begin: float, first: int) -> None:
        while self._events < until:
            self._events += _BATCH
            await anyio.sleep_until(begin + (self._events - first) / self._rate)
            names = ["plain"] * (_BATCH - 1) + [self._random.choice(("rare", "plain"))]
            events = tuple(NewEvent(uri(name), {"rows": 42, "path": "s3://b/k"}) for name in names)
            keys = tuple(f"{self._random.getrandbits(96):x}" for _ in names)
            await self._harness.call(RecordEvents(events, keys))

    async def _time_hops(self) -> None:
        harness = self._harness
        while True:
            known = len(harness.received)
            since = time.perf_counter()
            await harness.call(RecordEvents((NewEvent(uri("timed")),), (None,)))
            await harness.until(
                lambda known=known: any(
                    order.info.dag_id == "timed" for order in harness.received[known:]
                )
            )
            self._hops.append((time.perf_counter() - since) * 1000)
            await anyio.sleep(_HOP_PAUSE_SECONDS)

    async def _sample(self, stopping: anyio.Event) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            while not stopping.is_set():
                size = await connection.fetchval("SELECT pg_database_size(current_database())")
                self._sizes.append(round(size / 2**20, 1))
                with anyio.move_on_after(max(self._kept_seconds / 8, 0.5)):
                    await stopping.wait()
        finally:
            await connection.close()


def _spread(hops: list[float]) -> tuple[float, float]:
    return round(median(hops), 1), round(quantiles(hops, n=100)[98], 1)
