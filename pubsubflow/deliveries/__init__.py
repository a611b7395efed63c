"""Outbound deliveries post dataset events as CloudEvents to the URLs that subscribe to them."""

from pubsubflow.deliveries.service import DeliveryService
from pubsubflow.deliveries.settings import DeliverySettings

__all__ = ["DeliveryService", "DeliverySettings"]
