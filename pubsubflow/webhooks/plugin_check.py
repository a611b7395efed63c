"""Verifiers of plugins run in threads, under a time limit; what goes wrong refuses the request."""

import threading
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import structlog

from pubsubflow.errors import ConfigError, DefinitionError
from pubsubflow.model.webhooks import InstalledVerifier, PluginVerifier
from pubsubflow.plugins import decode_verifier
from pubsubflow.webhooks.request import NotVerified, WebhookRequest

log = structlog.get_logger(__name__)

VERIFY_SECONDS = 2.0
IMPORT_SECONDS = 10.0
_THREADS = 4


class PluginCheck:
    """The check of one plugin's verifier.

    Args:
        name: The name of its entry point.
        verifier: It.
        secrets: Its secrets, looked up.
        seconds: Time limit of one request.
    """

    def __init__(
        self,
        name: str,
        verifier: PluginVerifier,
        secrets: Sequence[str],
        *,
        seconds: float = VERIFY_SECONDS,
    ) -> None:
        self._name = name
        self._verifier = verifier
        self._secrets = tuple(secrets)
        self._seconds = seconds
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._stuck = 0

    async def verify(self, request: WebhookRequest, now: float) -> None:
        """Verify a request.

        Raises:
            NotVerified: It does not prove its origin, or the verifier failed or took too long.
        """
        # A thread cannot be ended: those that never return must not become more and more.
        if self._stuck >= _THREADS:
            raise self._failed("does not return from earlier requests")
        job = _Job(self, request, now)
        try:
            with anyio.fail_after(self._seconds):
                await self._run(job)
        except TimeoutError:
            raise self._failed(f"took longer than {self._seconds:g} s") from None
        if isinstance(job.error, NotVerified):
            raise job.error
        if job.error is not None:
            raise self._failed(f"raised {type(job.error).__name__}: {job.error}")
        if job.answer is not True:
            raise NotVerified("it does not prove its origin")

    def _failed(self, reason: str) -> NotVerified:
        log.error("webhook.verifier_failed", verifier=self._name, reason=reason)
        return NotVerified(f"the verifier {self._name} failed; the server's log says why")

    async def _run(self, job: "_Job") -> None:
        """Run a job in one of the threads, which it occupies until its call has returned."""
        await self._threads.acquire_on_behalf_of(job)
        try:
            await anyio.to_thread.run_sync(
                job.run, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
        finally:
            if job.abandon():
                self._stuck += 1
            else:
                self._threads.release_on_behalf_of(job)

    def call(self, request: WebhookRequest, now: float) -> Any:
        """Call the verifier, in this thread."""
        return self._verifier.verify(request, self._secrets, now)

    def end_stuck(self, job: "_Job") -> None:
        """Free the thread of a job whose call returned after its request had been refused."""
        self._stuck -= 1
        self._threads.release_on_behalf_of(job)


class _Job:
    """One call of a verifier, of which a thread may outlast the request."""

    def __init__(self, check: PluginCheck, request: WebhookRequest, now: float) -> None:
        self._check = check
        self._request = request
        self._now = now
        self._lock = threading.Lock()
        self._running = self._left = False
        self.answer: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        if not self._begin():
            return
        try:
            self.answer = self._check.call(self._request, self._now)
        except BaseException as error:  # noqa: BLE001 - a SystemExit here would end the daemon
            self.error = error
        with self._lock:
            self._running = False
            left = self._left
        if left:
            anyio.from_thread.run_sync(self._check.end_stuck, self)

    def _begin(self) -> bool:
        """Return whether something still waits for the answer."""
        with self._lock:
            self._running = not self._left
            return self._running

    def abandon(self) -> bool:
        """Wait for the answer no longer; return whether the call still runs."""
        with self._lock:
            self._left = True
            return self._running


async def plugin_check(stored: InstalledVerifier, secrets: Sequence[str]) -> PluginCheck:
    """Return the check of a plugin's verifier, imported in a thread.

    Raises:
        DefinitionError: It cannot be imported, takes too long, or refuses a secret.
    """
    try:
        with anyio.fail_after(IMPORT_SECONDS):
            verifier = await anyio.to_thread.run_sync(
                _imported, stored, tuple(secrets), abandon_on_cancel=True
            )
    except TimeoutError:
        raise DefinitionError(
            f"verifier {stored.name!r}: its import took longer than {IMPORT_SECONDS:g} s"
        ) from None
    if isinstance(verifier, str):
        raise DefinitionError(verifier)
    return PluginCheck(stored.name, verifier, secrets)


def _imported(stored: InstalledVerifier, secrets: Sequence[str]) -> PluginVerifier | str:
    """Return a verifier, or why there is none."""
    try:
        verifier = decode_verifier(stored)
        for secret in secrets:
            reason = verifier.invalid_reason(secret)
            if reason is not None:
                return f"verifier {stored.name!r}: {reason}"
    except ConfigError as error:
        return str(error)
    except BaseException as error:  # noqa: BLE001 - plugins may raise anything, SystemExit too
        return f"verifier {stored.name!r} cannot be imported: {error!r}"
    return verifier
