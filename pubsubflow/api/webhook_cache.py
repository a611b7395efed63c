"""The webhooks in force, in memory, with what came through each since the daemon started."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import anyio
import structlog

from pubsubflow.errors import (
    BusUnavailable,
    DefinitionError,
    NotFound,
    StoreUnavailable,
    Unavailable,
)
from pubsubflow.model.api.webhooks import HookView
from pubsubflow.model.webhooks import HookSpec
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.webhooks import ReadHooks, StoredHook
from pubsubflow.wakeup import Bells
from pubsubflow.webhooks.secrets import Found, SecretSource, look_up
from pubsubflow.webhooks.verify import Verify, verification

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 60.0
_RETRY_SECONDS = 1.0
_NEWS = (Subjects.DAGS_CHANGED, Subjects.CONNECTIONS_CHANGED)


class Door:
    """A webhook in force.

    Attributes:
        spec: As its file declares it.
        verify: Checks requests; None while it cannot.
        trouble: Why it cannot, or which of its secrets are missing.
        counts: How many requests became what; see HookView.
    """

    def __init__(self, stored: StoredHook) -> None:
        self.spec: HookSpec = stored.spec
        self.file = stored.file
        self.verify: Verify | None = None
        self.trouble: str | None = None
        self.found: Found | None = None
        self.counts: dict[str, int] = {}
        self.last_received_at: datetime | None = None
        self.last_refused_at: datetime | None = None
        self.last_refusal: str | None = None

    def count(self, what: str) -> None:
        """Count a request as one more of a kind."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def arrived(self, now: datetime) -> None:
        """Note that a request came."""
        self.count("received")
        self.last_received_at = now

    def refused(self, reason: str, now: datetime) -> None:
        """Note that a request was refused."""
        self.count("refused")
        self.last_refused_at, self.last_refusal = now, reason

    def turned_away(self, reason: str, now: datetime) -> None:
        """Note that a request came and was refused before anybody looked at what it holds."""
        self.arrived(now)
        self.refused(reason, now)

    def take_over(self, before: "Door") -> None:
        """Go on counting where an older version of the same webhook stopped."""
        self.counts = before.counts
        self.last_received_at = before.last_received_at
        self.last_refused_at, self.last_refusal = before.last_refused_at, before.last_refusal

    def open(self, found: Found) -> None:
        """Take the secrets that were looked up into use."""
        self.found = found
        self.verify, self.trouble = None, None
        if found.missing:
            self.trouble = "; ".join(found.missing)
        if found.secrets or not self.spec.verify.secrets():
            try:
                self.verify = verification(self.spec.verify, found.secrets)
            except DefinitionError as error:
                self.trouble = str(error)

    def view(self) -> HookView:
        """Return what people see of it."""
        spec = self.spec
        return HookView(
            name=spec.name,
            dataset=spec.dataset,
            verifier=type(spec.verify).__name__.lower(),
            file=self.file,
            path=f"/hooks/{spec.name}",
            when=spec.when,
            trouble=self.trouble,
            last_received_at=self.last_received_at,
            last_refused_at=self.last_refused_at,
            last_refusal=self.last_refusal,
            **self.counts,
        )


class Doors:
    """All webhooks in force; follows what the loader stores.

    Args:
        reading: Reads the webhooks.
        secrets: Knows the secrets that they name.
        bells: Ring when files were loaded, and when connections have changed.
        sweep_seconds: Safety net: read them anyway after that long without news.
    """

    def __init__(
        self,
        reading: ReadHooks,
        secrets: SecretSource,
        bells: Bells,
        *,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self._reading = reading
        self._secrets = secrets
        self._bells = bells
        self._sweep_seconds = sweep_seconds
        self._doors: dict[str, Door] | None = None

    def get(self, name: str) -> Door:
        """Return a webhook.

        Raises:
            NotFound: There is none by that name.
            StoreUnavailable: Nobody can tell yet.
        """
        door = self._known().get(name)
        if door is None:
            raise NotFound("webhook", name)
        return door

    def views(self) -> Sequence[HookView]:
        """Return all webhooks by name, as people see them.

        Raises:
            StoreUnavailable: Nobody can tell yet.
        """
        return [door.view() for _, door in sorted(self._known().items())]

    async def load(self) -> None:
        """Read which webhooks are in force now; those that were stay while nobody can tell."""
        try:
            stored = await self._reading.all()
            self._doors = {each.spec.name: await self._door(each) for each in stored}
        except Unavailable as error:
            log.warning("hooks.unknown", error=str(error))

    async def follow(self) -> None:
        """Keep them up to date until cancelled."""
        while True:
            try:
                async with self._bells.on(*_NEWS) as bell:
                    while True:
                        await self.load()
                        await bell.wait(self._sweep_seconds)
            except BusUnavailable as error:
                log.warning("hooks.deaf", error=str(error))
            await anyio.sleep(_RETRY_SECONDS)

    async def _door(self, stored: StoredHook) -> Door:
        """Return what serves a webhook: the one that does already, if nothing has changed."""
        before = self._known_or_none().get(stored.spec.name)
        found = await look_up(stored.spec.verify.secrets(), self._secrets)
        if before is not None and (before.spec, before.file, before.found) == (
            stored.spec,
            stored.file,
            found,
        ):
            return before
        door = Door(stored)
        door.open(found)
        if before is not None:
            door.take_over(before)
        if door.trouble is not None:
            log.warning("hook.trouble", hook=stored.spec.name, reason=door.trouble)
        return door

    def _known(self) -> Mapping[str, Door]:
        if self._doors is None:
            raise StoreUnavailable("the webhooks are not known yet")
        return self._doors

    def _known_or_none(self) -> Mapping[str, Door]:
        return self._doors or {}
