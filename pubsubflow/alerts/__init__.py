"""Alerts: calls callbacks in processes of their own, announces alerts."""

from pubsubflow.alerts.service import AlertService

__all__ = ["AlertService"]
