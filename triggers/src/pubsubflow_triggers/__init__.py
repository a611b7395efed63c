"""Triggers for pubsubflow, one small module each; a module is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pubsubflow_triggers.dask import DaskFuture
    from pubsubflow_triggers.files import FileAppears, FileGlob
    from pubsubflow_triggers.http import HttpJson, HttpLongPoll, HttpStatus
    from pubsubflow_triggers.imap import MailArrives
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
"""In which module each name lives."""

_EXTRAS = {
    "dask": "dask",
    "http": "http",
    "nats": "nats",
    "objects": "objects",
    "redis": "redis",
    "runs": "http",
    "sql": "postgres",
}
"""What a module needs beyond the base: the extra of this distribution that installs it."""


def __getattr__(name: str) -> Any:
    """Import a trigger's module when the trigger is first asked for.

    Raises:
        ImportError: What it needs is not installed; the text says how to.
    """
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
