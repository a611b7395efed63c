"""Announcer: makes events of the openings and ends of alerts, each once."""

from pubsubflow.model.wire.commands import CommandHandler, RecordEvents
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.store.alerts.alerts import AlertStore, Announcement

_MOST = 200


class Announcer:
    """Records events of alerts. The key of each event is its alert's, so that it exists once.

    Args:
        alerts: The stored alerts.
        commands: The manager.
    """

    def __init__(self, alerts: AlertStore, commands: CommandHandler) -> None:
        self._alerts = alerts
        self._commands = commands

    async def announce(self) -> None:
        """Announce what is not announced yet.

        Raises:
            Unavailable: Postgres is away.
            ServiceStopped: The manager stops.
        """
        more = True
        while more:
            found = await self._alerts.unannounced(_MOST)
            more = len(found) >= _MOST
            loud = [each for each in found if not each.quiet]
            if loud:
                events = tuple(map(_event, loud))
                keys = tuple(each.key for each in loud)
                await self._commands.execute(RecordEvents(events, keys, source="alert"))
            if found:
                await self._alerts.mark_announced(found)

    async def sweep(self) -> None:
        """End what is left open by mistake, then announce."""
        await self._alerts.end_left()
        await self.announce()


def _event(found: Announcement) -> NewEvent:
    return NewEvent(found.uri, found.extra, time=found.at)
