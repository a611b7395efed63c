"""The checks of a DAG after its import: cycles, and the cluster policies of the team."""

from collections.abc import Iterator
from typing import Any

from airflow import settings
from airflow.exceptions import (
    AirflowClusterPolicySkipDag,
    AirflowClusterPolicyViolation,
)


class PolicyFailed(Exception):  # noqa: N818 - as the errors of the project are named
    """A function of `airflow_local_settings` raised; its cause is what it raised."""


def accept(dag: Any) -> bool:
    """Check a DAG, and have cluster policies change it; return whether it is to be loaded.

    Raises:
        AirflowClusterPolicyViolation: A policy refuses it.
        PolicyFailed: A policy raised something else.
        Exception: The DAG is not valid: a cycle, a template file that is not there.
    """
    # In the order of Airflow's DagBag: policies see what is valid.
    dag.validate()
    dag.check_cycle()
    dag.resolve_template_files()
    try:
        settings.dag_policy(dag)
        for task in dag.tasks:
            settings.task_policy(task)
    except AirflowClusterPolicySkipDag:
        return False
    except AirflowClusterPolicyViolation:
        raise
    except Exception as error:
        raise PolicyFailed(f"{type(error).__name__}: {error}") from error
    return True


def missing_templates(dag: Any) -> Iterator[str]:
    """Yield each template file that an operator names and that is not found, as a sentence."""
    for task in dag.tasks:
        endings = tuple(task.template_ext or ())
        for name in task.template_fields if endings else ():
            # A file that was found has become its text.
            value = getattr(task, name, None)
            if isinstance(value, str) and value.endswith(endings) and "{{" not in value:
                yield f"task {task.task_id!r}: the template file {value!r} is not found"
