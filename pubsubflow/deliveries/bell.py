"""Wakes who waits for something to do."""

import anyio


class Bell:
    """Rung when there may be something to do; what rings between two waits is not lost."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self, _: object = None) -> None:
        """Wake whoever waits, now or next."""
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Wait until it rings, at most so long."""
        with anyio.move_on_after(seconds):
            await self._rung.wait()
        self._rung = anyio.Event()
