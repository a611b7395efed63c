"""Settings of retention, and of the log store."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from pubsubflow.model.ranges import CountOrNone, Seconds

KeptDays = Annotated[float, Meta(ge=0, le=36_600)]
"""Days, fractions too; 0 stands for ever."""
_DAY_SECONDS = 86_400.0


class RetentionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long what has happened is kept; 0 days for ever, a count of 0 for any number.

    Attributes:
        every_seconds: Pause between two passes.
        events_days: How long events are kept after they were recorded. What still waits for an
            event keeps it, whatever its age.
        events_count: About how many events are kept.
        runs_days: How long runs are kept after their end, with all that belongs to them.
        runs_count: How many runs of each DAG are kept.
        attempts_days: How long attempts that another one followed are kept after the run's end.
        logs_days: How long output of tasks is kept after the run's end.
        results_days: How long results of tasks are kept after the run's end.
        dead_letters_days: How long dead letters are kept after they were sent again.
        dead_letters_count: How many dead letters are kept, sent again or not.
        versions_days: How long versions of DAGs are kept that no run has.
        versions_count: How many versions of each DAG are kept, however old.
        keys_days: How long an idempotency key gives the first event again.
        checks_days: How long results of checks are kept, and events that were discarded. What still
            waits for a check, or is held, stays.
        partitions_days: How long a partition of a schedule is remembered after its last event, at
            least as long as its runs; then its next event begins anew.
        archive: URL of a folder (any of fsspec's) to which events and runs are written before they
            are removed; empty for none.
        archive_format: `jsonl`, a JSON object a line, compressed by gzip; or `parquet`.
    """

    every_seconds: Seconds = 300.0
    events_days: KeptDays = 30.0
    events_count: Annotated[int, Meta(ge=0, le=10**12)] = 0
    runs_days: KeptDays = 30.0
    runs_count: CountOrNone = 0
    attempts_days: KeptDays = 30.0
    logs_days: KeptDays = 14.0
    results_days: KeptDays = 30.0
    dead_letters_days: KeptDays = 30.0
    dead_letters_count: CountOrNone = 10_000
    versions_days: KeptDays = 90.0
    versions_count: CountOrNone = 20
    keys_days: KeptDays = 30.0
    checks_days: KeptDays = 90.0
    partitions_days: KeptDays = 90.0
    archive: str = ""
    archive_format: Literal["jsonl", "parquet"] = "jsonl"

    def numbers(self) -> dict[str, float]:
        """Return all limits by name; the archive's URL, which may hold a password, is none."""
        found = structs.asdict(self)
        return {name: value for name, value in found.items() if isinstance(value, int | float)}

    def seconds(self, name: str) -> float | None:
        """Return how long something is kept, in seconds; None for ever.

        Args:
            name: Of what: the setting's name without `_days`.
        """
        days: float = getattr(self, f"{name}_days")
        return days * _DAY_SECONDS if days else None


class LogStoreSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where output of tasks is kept after its attempt has ended.

    Attributes:
        store: URL of a folder (any of fsspec's, or of a plugin's); empty to keep it in Postgres.
        every_seconds: Pause between two looks for output to move.
    """

    store: str = ""
    every_seconds: Seconds = 5.0
