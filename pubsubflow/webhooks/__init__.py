"""Webhooks turn requests of other systems into dataset events; they are declared beside datasets.

::

    from pubsubflow import Dataset
    from pubsubflow.webhooks import GitHub, Secret, Webhook

    pushes = Dataset("github://acme/shop/pushes")

    Webhook("github", dataset=pushes, verify=GitHub(Secret("GITHUB")))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from pubsubflow.authoring.webhooks import Webhook

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


def __getattr__(name: str) -> Any:
    """Import what DAG files alone need at its first use."""
    if name == "Webhook":
        return import_module("pubsubflow.authoring.webhooks").Webhook
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
