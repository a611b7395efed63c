"""Since when silence means something."""

import time
from collections.abc import Callable

from pubsubflow.bus import Bus


class Vigil:
    """Measures for how long both servers have been at hand without a break.

    A worker that was not heard meanwhile is silent; one that was not heard before may only not
    have got through.

    Args:
        bus: NATS; a reconnect is a break.
        monotonic: The time, seconds.
    """

    def __init__(self, bus: Bus, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._bus = bus
        bus.on_reconnect(self.restart)

    @property
    def seconds(self) -> float:
        """For how long both have been at hand; 0 while NATS is away."""
        return self._monotonic() - self._since if self._bus.connected else 0.0

    def restart(self) -> None:
        """Note a break."""
        self._since = self._monotonic()
