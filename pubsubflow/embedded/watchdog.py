"""The watchdog of an embedded server probes it, and ends one that hangs or cannot store.

A server that has exited is started again; one that hangs holds its port and answers nothing, and a
JetStream whose disk was full refuses every message until it is started anew, however much space
there is by then (nats-server keeps the write error of a stream's file).
"""

from collections.abc import Callable
from math import inf
from typing import Protocol

import anyio
import structlog

from pubsubflow.open_files import files_exhausted
from pubsubflow.services import next_turn

log = structlog.get_logger(__name__)

_PROBE_SECONDS = 2.0
_MISSED_PROBES = 5
"""Probes without an answer before a server counts as hanging. They are counted, not timed: a daemon
that was stopped itself, or a machine that slept, has missed none."""
_STALLED_SECONDS = 10.0
_TRUSTED_PROBES = 15
"""Probes that are left out at most, one after the other, of a server that answers its clients."""


class WatchedServer(Protocol):
    """A server that can be probed and ended."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""

    async def answers(self) -> bool:
        """Return whether it answers a new connection."""

    def fault(self) -> str | None:
        """Return why it cannot work until it is started again; None if it can."""

    async def end(self, *, hangs: bool) -> None:
        """End the process, by force if it hangs; who waits for its exit starts it again."""


async def watch_server(
    server: WatchedServer,
    stalled_seconds: Callable[[], float] = float,
    *,
    unanswered_seconds: Callable[[], float] = lambda: inf,
    probe_seconds: float = _PROBE_SECONDS,
) -> None:
    """End a server whenever it hangs, or cannot work until it is started again.

    Args:
        server: The server.
        stalled_seconds: For how long it has not done what its clients wait for.
        unanswered_seconds: How long ago it has answered a client of this daemon.
        probe_seconds: Pause between two probes.
    """
    missed, trusted, probed = 0, 0, server.pid
    while True:
        await anyio.sleep_until(next_turn(probe_seconds))
        if server.pid is None or server.pid != probed:  # it ends, or has just been started
            missed, probed = 0, server.pid
            continue
        if files_exhausted():  # then the probe fails, not the server
            continue
        # A new connection costs a server more than all that an idle daemon does.
        trusted = trusted + 1 if unanswered_seconds() < probe_seconds else 0
        answers = bool(trusted % _TRUSTED_PROBES) or await server.answers()
        missed = 0 if answers else missed + 1
        reason = server.fault()
        if reason is None and stalled_seconds() >= _STALLED_SECONDS:
            reason = f"it has stored nothing for {stalled_seconds():.0f} s"
        hangs = missed >= _MISSED_PROBES
        if hangs:
            reason = f"it has not answered {missed} times"
        if reason is not None and server.pid == probed:
            log.error("embedded.server_stuck", server=server.name, pid=probed, reason=reason)
            await server.end(hangs=hangs)
