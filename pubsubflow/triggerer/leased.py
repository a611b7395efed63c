"""The leased triggers of a triggerer, with the state of their runs."""

from collections.abc import Iterator

from pubsubflow.model.wire.messages import FiredMessage, TaskError
from pubsubflow.store.triggers import LeasedTrigger
from pubsubflow.triggerer.protocol import TriggerSpec

_WATCH = "watch"
_CRASH_WINDOW_SECONDS = 600.0


class ActiveTrigger:
    """A leased trigger with the state of its run.

    Attributes:
        lease: Its row in the store; of a watch, with the position of its last event.
        isolated: It is known to block the event loop.
        failures: How often a watch failed since its last event.
        backing_off: A watch that failed and is started again later.
        on_host: The present host has got it.
        error: The error of a watch that is stored.
    """

    __slots__ = (
        *("_crashed_at", "_crashes"),
        *("backing_off", "error", "failures", "isolated", "lease", "on_host"),
    )

    def __init__(self, lease: LeasedTrigger) -> None:
        self.lease = lease
        self.isolated = False
        self._crashes = 0
        self._crashed_at = 0.0
        self.failures = 0
        self.backing_off = False
        self.on_host = False
        self.error = lease.error

    def record_crash(self, now: float) -> int:
        """Count a crash of the host while it ran; return how many there were within 10 minutes.

        Args:
            now: Seconds of a monotonic clock.
        """
        if now - self._crashed_at > _CRASH_WINDOW_SECONDS:
            self._crashes = 0
        self._crashes += 1
        self._crashed_at = now
        return self._crashes

    @property
    def watch(self) -> bool:
        """Whether it continues after its first event."""
        return self.lease.kind == _WATCH

    @property
    def spec(self) -> TriggerSpec:
        """What the host needs to run it."""
        lease = self.lease
        return TriggerSpec(
            lease.number,
            lease.name,
            lease.data,
            lease.share_key,
            self.watch,
            lease.created_at.timestamp(),
            lease.position,
            self.isolated,
            lease.dag_id,
        )

    @property
    def firing(self) -> FiredMessage:
        """The message of its next event, still without the event."""
        lease = self.lease
        return FiredMessage(
            trigger=lease.number,
            epoch=lease.epoch,
            sequence=lease.sequence + 1 if self.watch else 0,
            run=lease.run,
            node=lease.node,
            map_index=lease.map_index,
            delivery=lease.delivery,
            slot=lease.wait_index,
        )


class LeasedTriggers:
    """All leased triggers of a triggerer, by id.

    Attributes:
        epochs: Id → epoch of the lease.
    """

    def __init__(self) -> None:
        self._triggers: dict[int, ActiveTrigger] = {}
        self.epochs: dict[int, int] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._triggers)

    def __contains__(self, trigger_id: int) -> bool:
        """Return whether a trigger is leased."""
        return trigger_id in self._triggers

    def __iter__(self) -> Iterator[ActiveTrigger]:
        """Iterate over them in the order in which they were leased."""
        return iter(self._triggers.values())

    def get(self, trigger_id: int) -> ActiveTrigger | None:
        """Return a trigger, or None if it is not leased."""
        return self._triggers.get(trigger_id)

    def add(self, lease: LeasedTrigger) -> ActiveTrigger:
        """Add a trigger and return it."""
        trigger = self._triggers[lease.number] = ActiveTrigger(lease)
        self.epochs[lease.number] = lease.epoch
        return trigger

    def pop(self, trigger_id: int) -> ActiveTrigger | None:
        """Remove a trigger and return it, or None if it is not leased."""
        self.epochs.pop(trigger_id, None)
        return self._triggers.pop(trigger_id, None)


def stuck_error(name: str, seconds: float, stack: str) -> TaskError:
    """Return the error of a trigger that blocked the event loop for so long."""
    text = (
        f"trigger {name!r} blocked the event loop for more than {seconds:g} s, so its process was "
        "killed: await what takes time, or call it with asyncio.to_thread"
    )
    return TaskError("TriggerBlocked", text, stack)


def crash_error(name: str, exit_code: int, stack: str) -> TaskError:
    """Return the error of a trigger during which the process crashed again and again."""
    text = (
        f"the process for triggers died several times while trigger {name!r} ran (exit code "
        f"{exit_code}): look at what it calls in C"
    )
    return TaskError("TriggerCrashed", text, stack)
