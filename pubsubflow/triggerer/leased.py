"""The triggers that are ours."""

from collections.abc import Iterator

from pubsubflow.model.wire.messages import FiredMessage, TaskError
from pubsubflow.store.triggers import Leased
from pubsubflow.triggerer.protocol import Job

_WATCH = "watch"
_STRIKES_SECONDS = 600.0


class Held:
    """A trigger that is ours.

    Attributes:
        lease: What is stored about it; of a watch, with what we have heard since.
        apart: It is known to hold up others.
        failures: How often a watch failed since its last event.
        resting: A watch that is to be started again later.
        hosted: The host that lives has been told of it.
        error: What is stored as a watch's last error.
    """

    __slots__ = (
        *("_struck_at", "_strikes"),
        *("apart", "error", "failures", "hosted", "lease", "resting"),
    )

    def __init__(self, lease: Leased) -> None:
        self.lease = lease
        self.apart = False
        self._strikes = 0
        self._struck_at = 0.0
        self.failures = 0
        self.resting = False
        self.hosted = False
        self.error = lease.error

    def strike(self, now: float) -> int:
        """Note that the host died while it ran, at `now` in seconds; return how often of late."""
        if now - self._struck_at > _STRIKES_SECONDS:
            self._strikes = 0
        self._strikes += 1
        self._struck_at = now
        return self._strikes

    @property
    def watch(self) -> bool:
        """Whether it goes on after its first event."""
        return self.lease.kind == _WATCH

    @property
    def job(self) -> Job:
        """What the host needs to know."""
        lease = self.lease
        return Job(
            lease.number,
            lease.name,
            lease.data,
            lease.share,
            self.watch,
            lease.created_at.timestamp(),
            lease.position,
            self.apart,
        )

    @property
    def message(self) -> FiredMessage:
        """What a firing of it says in any case."""
        lease = self.lease
        return FiredMessage(
            trigger=lease.number,
            epoch=lease.epoch,
            sequence=lease.sequence + 1 if self.watch else 0,
            run=lease.run,
            node=lease.node,
            map_index=lease.map_index,
            delivery=lease.delivery,
            slot=lease.slot,
        )


class Holdings:
    """All that are ours, by their numbers.

    Attributes:
        epochs: Number → epoch of the lease.
    """

    def __init__(self) -> None:
        self._held: dict[int, Held] = {}
        self.epochs: dict[int, int] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._held)

    def __contains__(self, number: int) -> bool:
        """Return whether one is ours."""
        return number in self._held

    def __iter__(self) -> Iterator[Held]:
        """Iterate over them in the order in which they came."""
        return iter(self._held.values())

    def get(self, number: int) -> Held | None:
        """Return one, if it is ours."""
        return self._held.get(number)

    def add(self, lease: Leased) -> Held:
        """Add one and return it."""
        held = self._held[lease.number] = Held(lease)
        self.epochs[lease.number] = lease.epoch
        return held

    def pop(self, number: int) -> Held | None:
        """Forget one and return it, if it is ours."""
        self.epochs.pop(number, None)
        return self._held.pop(number, None)


def stuck_error(name: str, seconds: float, stack: str) -> TaskError:
    """Say that a trigger held up all others for so long and did not come back."""
    text = (
        f"trigger {name!r} held up all others for more than {seconds:g} s and did not come back, "
        "so its process was ended: await what takes time, or call it with asyncio.to_thread"
    )
    return TaskError("TriggerBlocked", text, stack)


def crash_error(name: str, exit_code: int, stack: str) -> TaskError:
    """Say that the process died again and again while a trigger ran."""
    text = (
        f"the process for triggers died several times while trigger {name!r} ran (exit code "
        f"{exit_code}): look at what it calls in C"
    )
    return TaskError("TriggerCrashed", text, stack)
