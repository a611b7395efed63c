"""Answers to calls of DAGs: the result of a run, or the run while it has not ended."""

from typing import Any

from msgspec import Struct


class CallAnswer(Struct, frozen=True, kw_only=True):
    """The answer to a call.

    Attributes:
        run_id: The run.
        state: Its state: `success`, or `queued` or `running` before it has ended.
        result: What the DAG's result task returned; of a mapped task the list of its instances'
            results; null before the end, and if the task was skipped.
    """

    run_id: str
    state: str
    result: Any = None
