"""NATS: the connection, the streams, publishers and consumers."""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.bus.connection import Bus
    from pubsubflow.bus.consumer import PullConsumer
    from pubsubflow.bus.consumer_stats import ConsumerStats
    from pubsubflow.bus.messages import Delivery, Message
    from pubsubflow.bus.settings import BusSettings
    from pubsubflow.bus.streams import (
        STREAM_EVT,
        STREAM_IN,
        STREAM_STATE,
        STREAM_TASK,
        find_last,
        find_next,
        purge_stream,
        read_last,
    )
    from pubsubflow.bus.subscription import Subscription

__all__ = [
    "STREAM_EVT",
    "STREAM_IN",
    "STREAM_STATE",
    "STREAM_TASK",
    "Bus",
    "BusSettings",
    "ConsumerStats",
    "Delivery",
    "Message",
    "PullConsumer",
    "Subscription",
    "find_last",
    "find_next",
    "purge_stream",
    "read_last",
]

__getattr__ = lazy_names(
    __name__,
    {
        "connection": ("Bus",),
        "consumer": ("PullConsumer",),
        "consumer_stats": ("ConsumerStats",),
        "messages": ("Delivery", "Message"),
        "settings": ("BusSettings",),
        "streams": (
            "STREAM_EVT",
            "STREAM_IN",
            "STREAM_STATE",
            "STREAM_TASK",
            "find_last",
            "find_next",
            "purge_stream",
            "read_last",
        ),
        "subscription": ("Subscription",),
    },
)
