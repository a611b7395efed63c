"""The retention of a DAG's runs."""

from datetime import timedelta

from msgspec import Struct

from pubsubflow.authoring.validation import optional, positive_seconds, whole
from pubsubflow.model.spec import RetentionSpec


class Retention(Struct, frozen=True, kw_only=True):
    """How long runs of a DAG are kept after their end; what is left out is kept for the usual time.

    Attributes:
        runs: The runs, with all that belongs to them.
        count: How many runs are kept.
        logs: Output of tasks.
        results: Results of tasks.
    """

    runs: timedelta | None = None
    count: int | None = None
    logs: timedelta | None = None
    results: timedelta | None = None


def retention_spec(value: object) -> RetentionSpec:
    """Return the serialised form of a `Retention`, or of a timedelta for the runs.

    Raises:
        TypeError: It is something else, or one of its values is.
        ValueError: A value is not above zero.
    """
    if isinstance(value, timedelta):
        value = Retention(runs=value)
    if not isinstance(value, Retention):
        raise TypeError("must be a timedelta or a Retention")
    seconds, count = optional(positive_seconds), optional(whole(1))
    return RetentionSpec(
        runs_seconds=seconds(value.runs),
        runs_count=count(value.count),
        logs_seconds=seconds(value.logs),
        results_seconds=seconds(value.results),
    )
