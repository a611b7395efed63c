"""Backoff between attempts to reach a server."""

from pubsubflow.model.triggers import TriggerContext

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 60.0


class Backoff:
    """Pauses between attempts to reach a server: twice as long each time, a minute at most.

    Args:
        ctx: The trigger's context, whose heap of timers keeps the pauses.
        server: The server's name for the log; without secrets.
    """

    def __init__(self, ctx: TriggerContext, server: str) -> None:
        self._ctx = ctx
        self._server = server
        self._next_seconds = _FIRST_SECONDS

    async def failed(self, error: Exception) -> None:
        """Show and log the failure, and return when the next attempt is due."""
        seconds = self._next_seconds
        self._next_seconds = min(2 * seconds, _LONGEST_SECONDS)
        reason = str(error) or type(error).__name__
        # Drivers begin their texts with their own name.
        text = reason if reason.startswith(f"{self._server}:") else f"{self._server}: {reason}"
        self._ctx.trouble(text)
        self._ctx.log("trigger.server_away", server=self._server, error=reason, retry_in=seconds)
        await self._ctx.sleep(seconds)

    def reached(self) -> None:
        """Show that the server is reached, and reset to the shortest pause."""
        self._ctx.trouble(None)
        self._next_seconds = _FIRST_SECONDS
