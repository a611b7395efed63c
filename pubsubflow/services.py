"""Services: the parts of a daemon, which start in order, run side by side and stop in reverse."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import anyio
import structlog
from anyio.abc import TaskStatus

from pubsubflow.errors import ServiceStopped

log = structlog.get_logger()


class Service(Protocol):
    """A part of a daemon.

    `run` calls `task_status.started()` once it is ready, drains and returns when `stopping` is
    set, and is cancelled when its drain takes too long.
    """

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run until `stopping` is set."""


async def run_until(
    stopping: anyio.Event,
    *loops: Callable[[], Coroutine[Any, Any, None]],
    task_status: TaskStatus[None],
) -> None:
    """Run endless loops, ready at once, and cancel them when `stopping` is set.

    This is the `run` of services with nothing to drain: what a loop leaves undone, the next one
    does.
    """
    async with anyio.create_task_group() as group:
        for loop in loops:
            group.start_soon(loop)
        task_status.started()
        await stopping.wait()
        group.cancel_scope.cancel()


def next_turn(seconds: float, *, after: float = 0.0) -> float:
    """Return when a loop of this interval has its next turn, in the event loop's time.

    Turns are at multiples of their interval, so that an idle process wakes once for all that have
    the same one, not for each of them.

    Args:
        seconds: The interval; a turn is at least a quarter of it away.
        after: By how much the turns are later than the multiples.
    """
    now = anyio.current_time()
    if seconds <= 0:
        return now
    left = seconds - (now - after) % seconds
    return now + (left if left >= seconds / 4 else left + seconds)


class _Running:
    """A started service, with the events that order its stop and report it."""

    def __init__(self, name: str, service: Service) -> None:
        self.name = name
        self._service = service
        self.stopping = anyio.Event()
        self.stopped = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        await self._service.run(self.stopping, task_status=task_status)
        # A service that ends by itself would leave the daemon running without it.
        if not self.stopping.is_set():
            raise ServiceStopped(self.name)
        self.stopped.set()


async def run_services(
    services: Sequence[tuple[str, Service]],
    stop: anyio.Event,
    *,
    drain_seconds: float,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Start services in order; when `stop` is set, stop them in reverse.

    Args:
        services: Names and services; each may rely on those before it.
        stop: Ends the whole.
        drain_seconds: How long the stop of all may take before what is left is cancelled.
        task_status: Started once every service is ready.

    Raises:
        ServiceStopped: A service returned before it was stopped.
    """
    async with anyio.create_task_group() as group:
        running: list[_Running] = []
        for name, service in services:
            entry = _Running(name, service)
            await group.start(entry.run, name=name)
            running.append(entry)
        task_status.started()
        await stop.wait()
        with anyio.move_on_after(drain_seconds) as drain:
            # One after the other: a service may still need those that were started before it.
            for entry in reversed(running):
                entry.stopping.set()
                await entry.stopped.wait()
        if drain.cancelled_caught:
            late = [entry.name for entry in running if not entry.stopped.is_set()]
            log.warning("daemon.drain_timed_out", seconds=drain_seconds, cancelled=late)
            group.cancel_scope.cancel()
