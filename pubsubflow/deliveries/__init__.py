"""Outbound deliveries post dataset events as CloudEvents to the URLs that subscribe to them."""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.deliveries.service import DeliveryService
    from pubsubflow.deliveries.settings import DeliverySettings

__all__ = ["DeliveryService", "DeliverySettings"]

__getattr__ = lazy_names(
    __name__, {"service": ("DeliveryService",), "settings": ("DeliverySettings",)}
)
