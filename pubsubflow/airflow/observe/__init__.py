"""A running Airflow beside: its asset events and runs as events here, and ours as its own."""

from pubsubflow.airflow.observe.posting import PostAssetEvents
from pubsubflow.airflow.observe.watching import AirflowAssetEvents, AirflowRuns

__all__ = ["AirflowAssetEvents", "AirflowRuns", "PostAssetEvents"]
