"""pubsubflow runs DAGs of tasks when the datasets that they subscribe to are updated."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pubsubflow.authoring.alerts.deadlines import Deadline
    from pubsubflow.authoring.approvals.question import ApprovalAnswer, ApprovalRequest, Escalate
    from pubsubflow.authoring.checks import Check, check
    from pubsubflow.authoring.dag import DAG, dag
    from pubsubflow.authoring.datasets import Dataset
    from pubsubflow.authoring.param import Param
    from pubsubflow.authoring.registry import variable
    from pubsubflow.authoring.resources import Resources
    from pubsubflow.authoring.retention import Retention
    from pubsubflow.authoring.runtime.context import Context, current_context
    from pubsubflow.authoring.runtime.context_names import get_current_context
    from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
    from pubsubflow.authoring.schedules.own_timetables import Timetable
    from pubsubflow.authoring.schedules.partitions import fan_out, fixed, identity, product, roll_up
    from pubsubflow.authoring.schedules.policies import batch, debounce, each, latest, partitioned
    from pubsubflow.authoring.schedules.timetables import Cron, Every
    from pubsubflow.authoring.tasks.decorator import setup, task, teardown
    from pubsubflow.authoring.tasks.groups import chain, task_group
    from pubsubflow.authoring.tasks.latest_only import LatestOnlyOperator
    from pubsubflow.authoring.tasks.limits import RateLimit
    from pubsubflow.authoring.tasks.operators import EmptyOperator, Operator, PythonOperator
    from pubsubflow.authoring.tasks.polling import Poked
    from pubsubflow.authoring.tasks.retries import Retry
    from pubsubflow.errors import (
        DefinitionError,
        Fail,
        PubsubflowError,
        ResultNotFound,
        RetryAfter,
        Skip,
        StepFailed,
        TaskFailed,
        TaskSkipped,
        TriggerError,
        WaitTimeout,
    )
    from pubsubflow.model.api.connection_types import ConnectionField, ConnectionType
    from pubsubflow.model.connections import Connection
    from pubsubflow.model.schedule.checks import CheckResult
    from pubsubflow.model.spec import TriggerRule
    from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
    from pubsubflow.operators.bash import BashOperator
    from pubsubflow.operators.branch import BranchPythonOperator, ShortCircuitOperator
    from pubsubflow.operators.email import EmailOperator
    from pubsubflow.operators.http import HttpOperator
    from pubsubflow.operators.runs import ExternalTaskSensor, TriggerDagRunOperator
    from pubsubflow.operators.sql import SqlOperator

_HOMES = {
    "authoring.runtime.context": ("Context", "current_context"),
    "authoring.runtime.context_names": ("get_current_context",),
    "authoring.runtime.dataset_event": ("DatasetEvent",),
    "authoring.approvals.question": ("ApprovalAnswer", "ApprovalRequest", "Escalate"),
    "authoring.checks": ("Check", "check"),
    "authoring.dag": ("DAG", "dag"),
    "authoring.datasets": ("Dataset",),
    "authoring.alerts.deadlines": ("Deadline",),
    "authoring.param": ("Param",),
    "authoring.resources": ("Resources",),
    "authoring.retention": ("Retention",),
    "authoring.registry": ("variable",),
    "authoring.tasks.groups": ("chain", "task_group"),
    "authoring.tasks.limits": ("RateLimit",),
    "authoring.tasks.polling": ("Poked",),
    "operators.bash": ("BashOperator",),
    "authoring.tasks.latest_only": ("LatestOnlyOperator",),
    "authoring.tasks.operators": ("EmptyOperator", "Operator", "PythonOperator"),
    "authoring.tasks.retries": ("Retry",),
    "authoring.schedules.partitions": ("fan_out", "fixed", "identity", "product", "roll_up"),
    "authoring.schedules.policies": ("batch", "debounce", "each", "latest", "partitioned"),
    "authoring.tasks.decorator": ("setup", "task", "teardown"),
    "authoring.schedules.own_timetables": ("Timetable",),
    "authoring.schedules.timetables": ("Cron", "Every"),
    "errors": (
        "DefinitionError",
        "Fail",
        "PubsubflowError",
        "RetryAfter",
        "Skip",
        "ResultNotFound",
        "StepFailed",
        "TaskFailed",
        "TaskSkipped",
        "TriggerError",
        "WaitTimeout",
    ),
    "model.schedule.checks": ("CheckResult",),
    "model.api.connection_types": ("ConnectionField", "ConnectionType"),
    "model.connections": ("Connection",),
    "model.spec": ("TriggerRule",),
    "model.triggers": ("Trigger", "TriggerContext", "TriggerEvent"),
    "operators.branch": ("BranchPythonOperator", "ShortCircuitOperator"),
    "operators.email": ("EmailOperator",),
    "operators.http": ("HttpOperator",),
    "operators.runs": ("ExternalTaskSensor", "TriggerDagRunOperator"),
    "operators.sql": ("SqlOperator",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DAG",
    "ApprovalAnswer",
    "ApprovalRequest",
    "BashOperator",
    "BranchPythonOperator",
    "Check",
    "CheckResult",
    "Connection",
    "ConnectionField",
    "ConnectionType",
    "Context",
    "Cron",
    "Dataset",
    "DatasetEvent",
    "Deadline",
    "DefinitionError",
    "EmailOperator",
    "EmptyOperator",
    "Escalate",
    "Every",
    "ExternalTaskSensor",
    "Fail",
    "HttpOperator",
    "LatestOnlyOperator",
    "Operator",
    "Param",
    "Poked",
    "PubsubflowError",
    "PythonOperator",
    "RateLimit",
    "Resources",
    "ResultNotFound",
    "Retention",
    "Retry",
    "RetryAfter",
    "ShortCircuitOperator",
    "Skip",
    "SqlOperator",
    "StepFailed",
    "TaskFailed",
    "TaskSkipped",
    "Timetable",
    "Trigger",
    "TriggerContext",
    "TriggerDagRunOperator",
    "TriggerError",
    "TriggerEvent",
    "TriggerRule",
    "WaitTimeout",
    "batch",
    "chain",
    "check",
    "current_context",
    "dag",
    "debounce",
    "each",
    "fan_out",
    "fixed",
    "get_current_context",
    "identity",
    "latest",
    "partitioned",
    "product",
    "roll_up",
    "setup",
    "task",
    "task_group",
    "teardown",
    "variable",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: most processes need few of them."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
