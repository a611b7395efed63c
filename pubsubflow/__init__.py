"""pubsubflow: datasets in, runs out, in milliseconds."""

from pubsubflow.authoring.chaining import chain
from pubsubflow.authoring.context import Context, DatasetEvent, current_context
from pubsubflow.authoring.dag import DAG, dag
from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.groups import task_group
from pubsubflow.authoring.operators import BashOperator, EmptyOperator, Operator, PythonOperator
from pubsubflow.authoring.partitions import fan_out, fixed, identity, product, roll_up
from pubsubflow.authoring.policies import batch, debounce, each, latest, partitioned
from pubsubflow.authoring.tasks import setup, task, teardown
from pubsubflow.authoring.times import Cron, Every
from pubsubflow.errors import DefinitionError, PubsubflowError, TaskFailed, TaskSkipped
from pubsubflow.model.structure import TriggerRule

__all__ = [
    "DAG",
    "BashOperator",
    "Context",
    "Cron",
    "Dataset",
    "DatasetEvent",
    "DefinitionError",
    "EmptyOperator",
    "Every",
    "Operator",
    "PubsubflowError",
    "PythonOperator",
    "TaskFailed",
    "TaskSkipped",
    "TriggerRule",
    "batch",
    "chain",
    "current_context",
    "dag",
    "debounce",
    "each",
    "fan_out",
    "fixed",
    "identity",
    "latest",
    "partitioned",
    "product",
    "roll_up",
    "setup",
    "task",
    "task_group",
    "teardown",
]
