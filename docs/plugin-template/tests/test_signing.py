import hmac

import pytest
from acme_plugins.signing import AcmeSigned

from pubsubflow.webhooks import NotVerified, WebhookRequest


def request(secret, time=1000, body=b"{}"):
    digest = hmac.digest(secret, b"%d." % time + body, "sha256").hex().encode()
    return WebhookRequest((("x-acme-signature", b"%d.%s" % (time, digest)),), body)


def test_a_signature_by_any_of_the_secrets_passes():
    verifier = AcmeSigned(secret=["new", "old"])
    assert verifier.verify(request(b"old"), ("new", "old"), 1100.0)
    assert not verifier.verify(request(b"none"), ("new", "old"), 1100.0)


def test_an_old_request_is_refused():
    with pytest.raises(NotVerified, match="too old"):
        AcmeSigned(secret="s").verify(request(b"s"), ("s",), 2000.0)
