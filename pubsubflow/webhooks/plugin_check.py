"""Verifiers of plugins run in threads, under a time limit; what goes wrong refuses the request."""

from collections.abc import Sequence
from functools import partial

import anyio
import anyio.to_thread
import structlog

from pubsubflow.errors import ConfigError, DefinitionError
from pubsubflow.model.webhooks import InstalledVerifier, PluginVerifier
from pubsubflow.plugins import decode_verifier
from pubsubflow.threads.thread_slots import ThreadSlots
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
        self._threads = ThreadSlots(_THREADS)

    async def verify(self, request: WebhookRequest, now: float) -> None:
        """Verify a request.

        Raises:
            NotVerified: It does not prove its origin, or the verifier failed or took too long.
        """
        # A thread cannot be ended: those that never return must not become more and more.
        if self._threads.are_all_stuck:
            raise self._failed("does not return from earlier requests")
        try:
            with anyio.fail_after(self._seconds):
                answer = await self._threads.run(partial(self._call, request, now))
        except TimeoutError:
            raise self._failed(f"took longer than {self._seconds:g} s") from None
        if isinstance(answer, NotVerified):
            raise answer
        if isinstance(answer, BaseException):
            raise self._failed(f"raised {type(answer).__name__}: {answer}")
        if answer is not True:
            raise NotVerified("it does not prove its origin")

    def _failed(self, reason: str) -> NotVerified:
        log.error("webhook.verifier_failed", verifier=self._name, reason=reason)
        return NotVerified(f"the verifier {self._name} failed; the server's log says why")

    def _call(self, request: WebhookRequest, now: float) -> object:
        """Call the verifier, in a thread; return its answer, or what it raised."""
        try:
            return self._verifier.verify(request, self._secrets, now)
        except BaseException as error:  # noqa: BLE001 - a SystemExit here would end the daemon
            return error


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
