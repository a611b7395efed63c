"""Signers of webhook requests, independent of the code under test."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import standardwebhooks
import stripe
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pubsubflow.model.webhooks import (
    Basic,
    Bearer,
    GitHub,
    GitLab,
    Hmac,
    Slack,
    StandardWebhooks,
    Stripe,
)
from pubsubflow.webhooks.request import WebhookRequest

NOW = 1_795_000_000
SHARED = "whsec_" + base64.b64encode(b"k" * 32).decode()
KEY = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
PUBLIC = "whpk_" + base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
SECRET = "not a secret"


def delivery(body, /, **headers):
    named = ((name.replace("_", "-"), value.encode()) for name, value in headers.items())
    return WebhookRequest(tuple(named), body)


def standard(body, *, secret=SHARED, at=NOW, name="msg_1"):
    signer = standardwebhooks.Webhook(secret)
    signature = signer.sign(name, datetime.fromtimestamp(at, UTC), body.decode())
    return delivery(body, webhook_id=name, webhook_timestamp=str(at), webhook_signature=signature)


def standard_public(body, *, at=NOW, name="msg_1"):
    signature = base64.b64encode(KEY.sign(f"{name}.{at}.".encode() + body)).decode()
    return delivery(
        body, webhook_id=name, webhook_timestamp=str(at), webhook_signature=f"v1a,{signature}"
    )


def github(body, *, secret=SECRET):
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return delivery(body, x_hub_signature_256=f"sha256={digest}")


def stripe_signed(body, *, secret=SECRET, at=NOW):
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at)
    return delivery(body, stripe_signature=header)


def slack(body, *, secret=SECRET, at=NOW):
    digest = hmac.new(secret.encode(), f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
    return delivery(body, x_slack_request_timestamp=str(at), x_slack_signature=f"v0={digest}")


def gitlab(body, *, secret=SECRET):
    return delivery(body, x_gitlab_token=secret)


def hmac_signed(body, *, secret=SECRET):
    digest = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha512).digest()).decode()
    return delivery(body, x_signed=f"sha512={digest}")


def url_safe(body, *, secret=SECRET):
    digest = hmac.new(secret.encode(), body, hashlib.sha1).digest()
    return delivery(body, x_signed=base64.urlsafe_b64encode(digest).decode())


def bearer(body, *, secret=SECRET):
    return delivery(body, authorization=f"Bearer {secret}")


def basic(body, *, secret=SECRET, user="user"):
    credentials = base64.b64encode(f"{user}:{secret}".encode()).decode()
    return delivery(body, authorization=f"Basic {credentials}")


# name → (verifier, its secret, signer, whether the body is signed)
SCHEMES = {
    "standard": (StandardWebhooks(SHARED), SHARED, standard, True),
    "ed25519": (StandardWebhooks(PUBLIC), PUBLIC, standard_public, True),
    "github": (GitHub(SECRET), SECRET, github, True),
    "stripe": (Stripe(SECRET), SECRET, stripe_signed, True),
    "slack": (Slack(SECRET), SECRET, slack, True),
    "gitlab": (GitLab(SECRET), SECRET, gitlab, False),
    "hmac": (
        Hmac(SECRET, header="X-Signed", algorithm="sha512", encoding="base64", prefix="sha512="),
        SECRET,
        hmac_signed,
        True,
    ),
    "base64url": (
        Hmac(SECRET, header="X-Signed", algorithm="sha1", encoding="base64url"),
        SECRET,
        url_safe,
        True,
    ),
    "bearer": (Bearer(SECRET), SECRET, bearer, False),
    "basic": (Basic("user", SECRET), SECRET, basic, False),
}
TIMED = ("standard", "ed25519", "stripe", "slack")
