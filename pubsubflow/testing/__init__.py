"""For tests of DAGs and triggers: what `DAG.test` returns, simulations, events, clocks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pubsubflow.authoring.runtime.inprocess import LogLine, RunResult, TaskResult
from pubsubflow.testing.clock import JumpingClock, VirtualClock
from pubsubflow.testing.events import event
from pubsubflow.testing.triggers import (
    RunningTrigger,
    TrialContext,
    carried,
    first_events,
    running,
)

if TYPE_CHECKING:
    from pubsubflow.testing.simulation import SimulatedRun, simulate

__all__ = [
    "JumpingClock",
    "LogLine",
    "RunResult",
    "RunningTrigger",
    "SimulatedRun",
    "TaskResult",
    "TrialContext",
    "VirtualClock",
    "carried",
    "event",
    "first_events",
    "running",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Import what simulates when it is first asked for: runs in this process need it not."""
    if name in ("SimulatedRun", "simulate"):
        return getattr(import_module("pubsubflow.testing.simulation"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
