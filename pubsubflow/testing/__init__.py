"""For tests of DAGs and triggers: what `DAG.test` returns, events, clocks."""

from pubsubflow.authoring.inprocess import LogLine, RunResult, TaskResult
from pubsubflow.testing.clock import JumpingClock, VirtualClock
from pubsubflow.testing.events import event
from pubsubflow.testing.triggers import first_events

__all__ = [
    "JumpingClock",
    "LogLine",
    "RunResult",
    "TaskResult",
    "VirtualClock",
    "event",
    "first_events",
]
