"""The webhook cache keeps the webhooks in force, their secrets and their counters in memory."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog

from pubsubflow.errors import DefinitionError, NewerFormat, NotFound, StoreUnavailable, Unavailable
from pubsubflow.model.api.webhooks import WebhookView
from pubsubflow.model.webhooks import AnyVerifier, InstalledVerifier, WebhookSpec
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.read.webhooks import ReadWebhooks, StoredWebhook
from pubsubflow.wakeup import Wakeups
from pubsubflow.webhooks.plugin_check import PluginCheck, plugin_check
from pubsubflow.webhooks.secrets import FoundSecrets, SecretSource, look_up
from pubsubflow.webhooks.verify import Verify, verification

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 60.0
_CHANGE_SUBJECTS = (Subjects.DAGS_CHANGED, Subjects.CONNECTIONS_CHANGED)


class WebhookState:
    """A webhook in force, and what became of its requests since the daemon started.

    Attributes:
        spec: The webhook as its file declares it.
        verify: Verifies requests; None while it cannot.
        trouble: Why it cannot, or which of its secrets are missing.
        counts: Number of requests by outcome; see `WebhookView`.
    """

    def __init__(self, stored: StoredWebhook) -> None:
        self.spec: WebhookSpec = stored.spec
        self.file = stored.file
        self.verify: Verify | PluginCheck | None = None
        self.trouble: str | None = None
        self.secrets: FoundSecrets | None = None
        self.counts: dict[str, int] = {}
        self.last_received_at: datetime | None = None
        self.last_refused_at: datetime | None = None
        self.last_refusal: str | None = None

    def count(self, outcome: str) -> None:
        """Count one more request with an outcome."""
        self.counts[outcome] = self.counts.get(outcome, 0) + 1

    def record_arrival(self, now: datetime) -> None:
        """Record that a request arrived."""
        self.count("received")
        self.last_received_at = now

    def record_refusal(self, reason: str, now: datetime) -> None:
        """Record that a request was refused."""
        self.count("refused")
        self.last_refused_at, self.last_refusal = now, reason

    def record_early_refusal(self, reason: str, now: datetime) -> None:
        """Record that a request was refused before it was verified."""
        self.record_arrival(now)
        self.record_refusal(reason, now)

    def continue_from(self, before: "WebhookState") -> None:
        """Take over the counters of an older version of the same webhook."""
        self.counts = before.counts
        self.last_received_at = before.last_received_at
        self.last_refused_at, self.last_refusal = before.last_refused_at, before.last_refusal

    async def use_secrets(self, secrets: FoundSecrets) -> None:
        """Verify with these secrets from now on."""
        self.secrets = secrets
        self.verify, self.trouble = None, None
        if secrets.missing:
            self.trouble = "; ".join(secrets.missing)
        if secrets.secrets or not self.spec.verify.secrets():
            try:
                self.verify = await self._verification(secrets.secrets)
            except DefinitionError as error:
                self.trouble = str(error)

    async def _verification(self, secrets: Sequence[str]) -> Verify | PluginCheck:
        verifier = self.spec.verify
        if isinstance(verifier, InstalledVerifier):
            return await plugin_check(verifier, secrets)
        return verification(verifier, secrets)

    def view(self) -> WebhookView:
        """Return its representation in the API."""
        spec = self.spec
        return WebhookView(
            name=spec.name,
            dataset=spec.dataset,
            verifier=_name_of(spec.verify),
            file=self.file,
            path=f"/hooks/{spec.name}",
            when=spec.when,
            trouble=self.trouble,
            last_received_at=self.last_received_at,
            last_refused_at=self.last_refused_at,
            last_refusal=self.last_refusal,
            **self.counts,
        )


def _name_of(verifier: AnyVerifier) -> str:
    if isinstance(verifier, InstalledVerifier):
        return verifier.name
    return type(verifier).__name__.lower()


class WebhookCache:
    """All webhooks in force; follows what the loader stores.

    Args:
        stored: Reads the stored webhooks.
        secrets: Looks up the secrets that they name.
        wakeups: Notify when files were loaded, and when connections have changed.
        sweep_seconds: Interval of the safety net that reads them anyway.
    """

    def __init__(
        self,
        stored: ReadWebhooks,
        secrets: SecretSource,
        wakeups: Wakeups,
        *,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self._stored = stored
        self._secrets = secrets
        self._wakeups = wakeups
        self._sweep_seconds = sweep_seconds
        self._states: dict[str, WebhookState] | None = None
        self._newer: Mapping[str, str] = {}

    def get(self, name: str) -> WebhookState:
        """Return a webhook.

        Raises:
            NotFound: No webhook has that name.
            NewerFormat: Only a newer version can verify its requests.
            StoreUnavailable: The webhooks were never read.
        """
        state = self._known().get(name)
        if name in self._newer:
            raise NewerFormat(self._newer[name])
        if state is None:
            raise NotFound("webhook", name)
        return state

    def views(self) -> Sequence[WebhookView]:
        """Return the representations of all webhooks, by name.

        Raises:
            StoreUnavailable: The webhooks were never read.
        """
        return [state.view() for _, state in sorted(self._known().items())]

    async def load(self) -> None:
        """Read the webhooks in force; those known before stay while Postgres is away."""
        try:
            stored = await self._stored.all()
            self._states = {each.spec.name: await self._state(each) for each in stored.readable}
            self._newer = stored.newer
        except Unavailable as error:
            log.warning("webhooks.load_failed", reason=str(error))

    async def run(self) -> None:
        """Keep the webhooks up to date until cancelled."""
        await self._wakeups.refresh(self.load, *_CHANGE_SUBJECTS, sweep_seconds=self._sweep_seconds)

    async def _state(self, stored: StoredWebhook) -> WebhookState:
        """Return the state of a stored webhook: the present one if nothing has changed."""
        before = (self._states or {}).get(stored.spec.name)
        # Looked up at every load: a secret may change in the environment or in a connection
        # without any change to the webhook.
        secrets = await look_up(stored.spec.verify.secrets(), self._secrets)
        if before is not None and (before.spec, before.file, before.secrets) == (
            stored.spec,
            stored.file,
            secrets,
        ):
            return before
        state = WebhookState(stored)
        await state.use_secrets(secrets)
        if before is not None:
            state.continue_from(before)
        if state.trouble is not None:
            log.warning("webhook.unusable", webhook=stored.spec.name, reason=state.trouble)
        return state

    def _known(self) -> Mapping[str, WebhookState]:
        if self._states is None:
            raise StoreUnavailable("the webhooks are not loaded yet: try again")
        return self._states
