"""Operators: tasks as classes, for what most pipelines do; also those of plugins."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pubsubflow.authoring.tasks.operators import EmptyOperator, Operator, PythonOperator
    from pubsubflow.operators.bash import BashOperator
    from pubsubflow.operators.branch import BranchPythonOperator, ShortCircuitOperator
    from pubsubflow.operators.dbt import DbtOperator
    from pubsubflow.operators.docker import DockerOperator
    from pubsubflow.operators.email import EmailOperator
    from pubsubflow.operators.file_transform import FileTransformOperator
    from pubsubflow.operators.http import HttpOperator
    from pubsubflow.operators.papermill import PapermillOperator
    from pubsubflow.operators.runs import ExternalTaskSensor, TriggerDagRunOperator
    from pubsubflow.operators.sql import SqlOperator

_HOMES = {
    "operators.bash": ("BashOperator",),
    "authoring.tasks.operators": ("EmptyOperator", "Operator", "PythonOperator"),
    "operators.branch": ("BranchPythonOperator", "ShortCircuitOperator"),
    "operators.dbt": ("DbtOperator",),
    "operators.docker": ("DockerOperator",),
    "operators.email": ("EmailOperator",),
    "operators.file_transform": ("FileTransformOperator",),
    "operators.http": ("HttpOperator",),
    "operators.papermill": ("PapermillOperator",),
    "operators.runs": ("ExternalTaskSensor", "TriggerDagRunOperator"),
    "operators.sql": ("SqlOperator",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BashOperator",
    "BranchPythonOperator",
    "DbtOperator",
    "DockerOperator",
    "EmailOperator",
    "EmptyOperator",
    "ExternalTaskSensor",
    "FileTransformOperator",
    "HttpOperator",
    "Operator",
    "PapermillOperator",
    "PythonOperator",
    "ShortCircuitOperator",
    "SqlOperator",
    "TriggerDagRunOperator",
]


def __getattr__(name: str) -> Any:
    """Import an operator at its first use: ours, or that of a plugin."""
    home = _HOME_OF.get(name)
    if home is not None:
        found = getattr(import_module(f"pubsubflow.{home}"), name)
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        found = _plugin(name)
    globals()[name] = found
    return found


def _plugin(name: str) -> Any:
    plugins = import_module("pubsubflow.plugins")
    if not any(
        each.kind == "operator" and each.name == name for each in plugins.installed_plugins()
    ):
        raise AttributeError(
            f"module {__name__!r} has no operator {name!r}, and no plugin that is installed here "
            "has one: `pubsubflow plugins list`"
        )
    return plugins.load_plugin("operator", name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
