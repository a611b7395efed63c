"""JSON types of actions on many runs, and of marks."""

from enum import StrEnum

from msgspec import Struct

from pubsubflow.model.api.resources import ClearedTaskView


class BulkAction(StrEnum):
    """An action on each of many runs."""

    CANCEL = "cancel"
    RETRY = "retry"
    CLEAR = "clear"
    MARK = "mark"


class BulkOutcome(StrEnum):
    """What became of one run: done, planned in a dry run, or left as it is."""

    DONE = "done"
    PLANNED = "planned"
    LEFT = "left"


class BulkRunView(Struct, frozen=True, kw_only=True):
    """A run that an action was about.

    Attributes:
        state: Its state when it was chosen.
        cleared: How often tasks of it had been cleared when it was chosen.
        detail: Why it is left as it is.
        tasks: How many of its tasks run again or are marked, or would; None for a cancellation.
    """

    run_id: str
    dag_id: str
    state: str
    cleared: int
    outcome: str
    detail: str | None = None
    tasks: int | None = None


class BulkView(Struct, frozen=True, kw_only=True):
    """The runs that an action was about, and what became of each.

    Attributes:
        counts: Outcome → number of runs.
        next: The `after` of the next request; None when the filter takes no further runs.
    """

    action: str
    dry_run: bool
    counts: dict[str, int]
    runs: list[BulkRunView]
    next: str | None = None


class BulkTasksView(Struct, frozen=True, kw_only=True):
    """Chosen tasks of a run that an action was about.

    Attributes:
        state: The run's state when they were chosen.
        cleared: How often tasks of the run had been cleared then.
        chosen: The chosen tasks, with `.<map index>` for one instance of a mapped task.
        detail: Why they are left as they are.
        tasks: How many tasks run again or are marked, or would: with those that follow from the
            chosen ones.
    """

    run_id: str
    dag_id: str
    state: str
    cleared: int
    chosen: tuple[str, ...]
    outcome: str
    detail: str | None = None
    tasks: int | None = None


class BulkTasks(Struct, frozen=True, kw_only=True):
    """The tasks of many runs that an action was about, run by run, and what became of each.

    Attributes:
        counts: Outcome → number of chosen tasks.
        next: The `after` of the next request; None when the filter takes no further tasks.
    """

    action: str
    dry_run: bool
    counts: dict[str, int]
    runs: list[BulkTasksView]
    next: str | None = None


class MarkedRun(Struct, frozen=True, kw_only=True):
    """The tasks of a run that were marked, or would be.

    Attributes:
        state: The run's state now.
        tasks: The marked ones, each with its state before; `none` for one that had not started.
        anew: Those that had ended without having run, because of what came before them: whether
            they run is decided anew.
    """

    run_id: str
    state: str
    dry_run: bool
    tasks: list[ClearedTaskView]
    anew: list[ClearedTaskView]
