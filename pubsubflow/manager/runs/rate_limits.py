"""Rate limits of one transaction: what may start, and the timer at which the next one may.

They are read and written under the lock of all slots, in the transaction that makes the tasks
`queued`. So a start that counts is one that is handed out, whatever dies in between.
"""

from collections.abc import Iterable, Mapping

import msgspec

from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.model.limits.rates import Bucket, RateLimitSpec
from pubsubflow.model.wire.commands import Timer
from pubsubflow.store.batches.manager_transaction import ManagerTransaction


class RateLimits:
    """The rate limits that tasks of a batch need.

    Args:
        uow: Takes the timers.
        transaction: Reads and writes the limits.
    """

    def __init__(self, uow: UnitOfWork, transaction: ManagerTransaction) -> None:
        self._uow = uow
        self._transaction = transaction
        self._required: dict[str, RateLimitSpec] = {}
        self._buckets: dict[str, Bucket] = {}

    def require(self, spec: RateLimitSpec) -> None:
        """Remember how a task that joins declares its rate limit."""
        self._required.setdefault(spec.name, spec)

    async def read(self, names: Iterable[str]) -> None:
        """Read rate limits; one that is not stored is what a task that joins declares."""
        wanted = sorted(names)
        await self._fetch(wanted)
        missing = [name for name in wanted if name not in self._buckets and name in self._required]
        for name in missing:
            spec = self._required[name]
            await self._transaction.fetch(
                "register_rate_limit", spec.name, spec.starts, spec.per_seconds, spec.burst
            )
        if missing:
            await self._fetch(missing)

    async def _fetch(self, names: list[str]) -> None:
        for row in await self._transaction.fetch("read_rate_limits", names):
            spec = RateLimitSpec(row["name"], row["starts"], row["per_seconds"], row["burst"])
            # The timer that woke it is gone, even if the clock here is a little behind.
            woken = spec.name in self._uow.runs.woken_rate_limits
            wake_at = None if woken else row["wake_at"]
            self._buckets[spec.name] = Bucket(spec, row["full_at"], wake_at)

    def available(self) -> dict[str, int]:
        """Return name → how many tasks may start at once."""
        now = self._uow.now
        return {name: bucket.available(now) for name, bucket in self._buckets.items()}

    async def save(self, started: Mapping[str, int], waiting: Iterable[str]) -> None:
        """Save what has started, and set timers for what waits.

        Args:
            started: Name → how many tasks start in this transaction.
            waiting: The limits for which tasks still wait.
        """
        now, rows = self._uow.now, []
        still = set(waiting)
        for name, bucket in sorted(self._buckets.items()):
            taken = started.get(name, 0)
            left = bucket.take(taken, now) if taken else bucket
            if name in still and not left.available(now):
                left = self._wake(left)
            if left is not bucket:
                rows.append((name, left.full_at, left.wake_at))
        await self._transaction.write("save_rate_limits", rows)

    def _wake(self, bucket: Bucket) -> Bucket:
        """Set a timer for the next start, unless one is due before it."""
        now = self._uow.now
        due = bucket.next_at(now)
        if bucket.wake_at is not None and now < bucket.wake_at <= due:
            return bucket
        self._uow.timers.append(Timer(due, "rate_limit", key=bucket.spec.name))
        return msgspec.structs.replace(bucket, wake_at=due)
