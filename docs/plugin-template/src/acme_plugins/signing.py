"""A verifier of webhooks: Acme signs the time and the body."""

import hmac
from collections.abc import Sequence

from pubsubflow.webhooks import NotVerified, PluginVerifier, WebhookRequest


class AcmeSigned(PluginVerifier, frozen=True, kw_only=True):
    """`X-Acme-Signature: <seconds since 1970>.<HMAC-SHA256 in hex>`.

    Args:
        tolerance: Seconds by which that time may differ from the server's.
    """

    tolerance: float = 300

    def verify(self, request: WebhookRequest, secrets: Sequence[str], now: float) -> bool:
        time, _, signature = request.one("x-acme-signature").partition(b".")
        if not time.isdigit() or abs(now - int(time)) > self.tolerance:
            raise NotVerified("the time in x-acme-signature is too old, or not a time")
        wanted = [
            hmac.digest(each.encode(), time + b"." + request.body, "sha256").hex().encode()
            for each in secrets
        ]
        return any([hmac.compare_digest(signature, each) for each in wanted])
