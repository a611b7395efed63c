"""Events out: delivers dataset events as CloudEvents to those who want them at a URL."""

from pubsubflow.subscriptions.service import Subscriptions
from pubsubflow.subscriptions.settings import SubscriptionsSettings

__all__ = ["Subscriptions", "SubscriptionsSettings"]
