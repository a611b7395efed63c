"""Executors of plugins: what they are made from; see docs/executors.md."""

from pubsubflow.errors import CannotStart
from pubsubflow.executors.interface import (
    BEGUN,
    BEGUN_FILE,
    DONE,
    NOT_BEGUN,
    Attempt,
    AttemptExit,
    AttemptLabel,
    Executor,
    ExecutorOptions,
    ResultKeeper,
)
from pubsubflow.model.wire.task_resources import ResourcesSpec

__all__ = [
    "BEGUN",
    "BEGUN_FILE",
    "DONE",
    "NOT_BEGUN",
    "Attempt",
    "AttemptExit",
    "AttemptLabel",
    "CannotStart",
    "Executor",
    "ExecutorOptions",
    "ResourcesSpec",
    "ResultKeeper",
]
