"""JSON types of the state of DAGs."""

from datetime import datetime
from typing import Any

from msgspec import Struct


class StateView(Struct, frozen=True, kw_only=True):
    """A value that a DAG keeps from run to run.

    Attributes:
        name: Its name, or the URI of a dataset.
        changes: How often it was set or reset.
        run_id: The run whose task has set it; None when a person did. Likewise `task_id`.
    """

    name: str
    value: Any
    changes: int
    run_id: str | None = None
    task_id: str | None = None
    updated_at: datetime
