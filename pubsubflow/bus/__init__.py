"""NATS: the connection, the streams, publishing and pulling. The only package that speaks it."""

from pubsubflow.bus.backlog import Backlog
from pubsubflow.bus.connection import Bus, Subscription
from pubsubflow.bus.consumer import Puller
from pubsubflow.bus.consumer_stats import Lag
from pubsubflow.bus.messages import Delivery, Message
from pubsubflow.bus.settings import BusSettings
from pubsubflow.bus.streams import STREAM_EVT, STREAM_IN, STREAM_TASK

__all__ = [
    "STREAM_EVT",
    "STREAM_IN",
    "STREAM_TASK",
    "Backlog",
    "Bus",
    "BusSettings",
    "Delivery",
    "Lag",
    "Message",
    "Puller",
    "Subscription",
]
