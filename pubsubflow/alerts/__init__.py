"""Alerts: calls callbacks in processes of their own, announces alerts."""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.alerts.service import AlertService

__all__ = ["AlertService"]

__getattr__ = lazy_names(__name__, {"service": ("AlertService",)})
