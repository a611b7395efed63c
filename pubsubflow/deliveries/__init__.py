"""Events out: delivers dataset events as CloudEvents to those who want them at a URL."""

from pubsubflow.deliveries.service import Subscriptions
from pubsubflow.deliveries.settings import SubscriptionsSettings

__all__ = ["Subscriptions", "SubscriptionsSettings"]
