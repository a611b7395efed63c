"""Webhooks turn requests of other systems into dataset events; they are declared beside datasets.

::

    from pubsubflow import Dataset
    from pubsubflow.webhooks import GitHub, Secret, Webhook

    pushes = Dataset("github://acme/shop/pushes")

    Webhook("github", dataset=pushes, verify=GitHub(Secret("GITHUB")))
"""

from pubsubflow.authoring.webhooks import Webhook
from pubsubflow.model.webhooks import (
    Basic,
    Bearer,
    GitHub,
    GitLab,
    Hmac,
    PluginVerifier,
    Secret,
    Slack,
    StandardWebhooks,
    Stripe,
    Unverified,
)
from pubsubflow.webhooks.request import NotVerified, WebhookRequest

__all__ = [
    "Basic",
    "Bearer",
    "GitHub",
    "GitLab",
    "Hmac",
    "NotVerified",
    "PluginVerifier",
    "Secret",
    "Slack",
    "StandardWebhooks",
    "Stripe",
    "Unverified",
    "Webhook",
    "WebhookRequest",
]
