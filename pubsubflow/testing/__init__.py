"""Tools for tests of DAGs and triggers: results of `DAG.test`, simulations, events, clocks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pubsubflow.authoring.runtime.inprocess import LogLine, RunResult, TaskResult
from pubsubflow.testing.checks import arun_check, run_check
from pubsubflow.testing.clock import JumpingClock, VirtualClock
from pubsubflow.testing.events import event
from pubsubflow.testing.triggers import (
    RunningTrigger,
    TrialContext,
    first_events,
    round_trip,
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
    "arun_check",
    "event",
    "first_events",
    "round_trip",
    "run_check",
    "running",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Import the simulation at its first use: it needs the manager, and runs do not."""
    if name in ("SimulatedRun", "simulate"):
        return getattr(import_module("pubsubflow.testing.simulation"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
