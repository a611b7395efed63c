"""Triggers for pubsubflow; the module of a trigger is imported at its first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pubsubflow_triggers.dask import DaskFuture
    from pubsubflow_triggers.files import FileAppears, FileGlob
    from pubsubflow_triggers.http import HttpJson, HttpLongPoll, HttpStatus
    from pubsubflow_triggers.imap import MailArrives
    from pubsubflow_triggers.kafka import KafkaMessage
    from pubsubflow_triggers.nats import JetStreamMessage, KvKey, NatsMessage
    from pubsubflow_triggers.objects import ObjectAppears, ObjectGlob
    from pubsubflow_triggers.process import Command, ProcessEnds
    from pubsubflow_triggers.redis import RedisKey, RedisList, RedisStream
    from pubsubflow_triggers.runs import DagRun, RunEnds
    from pubsubflow_triggers.sql import PostgresNotify, QueryIsTrue
    from pubsubflow_triggers.tcp import TcpPort
    from pubsubflow_triggers.time import CronWindow, Delta, Moment

    __all__ = [
        "Command",
        "CronWindow",
        "DagRun",
        "DaskFuture",
        "Delta",
        "FileAppears",
        "FileGlob",
        "HttpJson",
        "HttpLongPoll",
        "HttpStatus",
        "JetStreamMessage",
        "KafkaMessage",
        "KvKey",
        "MailArrives",
        "Moment",
        "NatsMessage",
        "ObjectAppears",
        "ObjectGlob",
        "PostgresNotify",
        "ProcessEnds",
        "QueryIsTrue",
        "RedisKey",
        "RedisList",
        "RedisStream",
        "RunEnds",
        "TcpPort",
    ]

_MODULES = {
    "Command": "process",
    "CronWindow": "time",
    "DagRun": "runs",
    "DaskFuture": "dask",
    "Delta": "time",
    "FileAppears": "files",
    "FileGlob": "files",
    "HttpJson": "http",
    "HttpLongPoll": "http",
    "HttpStatus": "http",
    "JetStreamMessage": "nats",
    "KafkaMessage": "kafka",
    "KvKey": "nats",
    "MailArrives": "imap",
    "Moment": "time",
    "NatsMessage": "nats",
    "ObjectAppears": "objects",
    "ObjectGlob": "objects",
    "PostgresNotify": "sql",
    "ProcessEnds": "process",
    "QueryIsTrue": "sql",
    "RedisKey": "redis",
    "RedisList": "redis",
    "RedisStream": "redis",
    "RunEnds": "runs",
    "TcpPort": "tcp",
}
"""The module of each name."""

_EXTRAS = {
    "dask": "dask",
    "http": "http",
    "kafka": "kafka",
    "nats": "nats",
    "objects": "objects",
    "redis": "redis",
    "runs": "http",
    "sql": "postgres",
}
"""The extra of this distribution that installs the libraries of a module."""


def __getattr__(name: str) -> Any:
    """Import a trigger's module at the first use of the trigger.

    `__all__` names those whose libraries are installed: `import *` takes what there is.

    Raises:
        ImportError: A library is not installed; the message names the extra.
    """
    if name == "__all__":
        return [each for each in _MODULES if _is_installed(each)]
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(module)
        if extra is None:
            raise
        raise ImportError(
            f"{name} needs {error.name!r}: pip install 'pubsubflow-triggers[{extra}]'",
            name=error.name,
        ) from error


def _is_installed(name: str) -> bool:
    try:
        __getattr__(name)
    except ImportError:
        return False
    return True
