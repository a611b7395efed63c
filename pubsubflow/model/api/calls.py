"""Answers to calls of DAGs: the result of a run, or the run while it has not ended."""

from typing import Any

from msgspec import Struct


class CallAnswer(Struct, frozen=True, kw_only=True):
    """The answer to a call.

    Attributes:
        run_id: The run.
        state: Its state: `success`, or `queued` or `running` while there is no result.
        result: What the DAG's result task returned; of a mapped task the list of its instances'
            results; null while there is none, and if the task was skipped.
    """

    run_id: str
    state: str
    result: Any = None
