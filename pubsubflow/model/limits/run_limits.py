"""Limits of runs: of all DAGs that have a tag, so many runs are active at once, and which is next.

A run needs room in the limit of each limited tag
of its DAG, and in its DAG's `max_active_runs`. The highest priority goes first, that of the DAG,
then the run that has waited longest; one that lacks room elsewhere holds up none behind it.
"""

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

RUNS = "runs:tag:"
"""What the name of a limit of runs begins with, in place of a pool's: `runs:tag:<tag>`."""


class DagRuns(Struct, frozen=True):
    """The runs of a DAG, by number.

    Attributes:
        limits: The limits that hold its runs: `runs:tag:<tag>`.
        active: Its active runs.
        apart: Those of them that a limit of their backfill counts, not `max_active_runs`.
        queued: Those that wait.
        most: Its `max_active_runs`.
        priority: Its priority.
    """

    dag: int
    limits: frozenset[str]
    active: int = 0
    apart: int = 0
    queued: int = 0
    most: int = 16
    priority: int = 0

    @property
    def room(self) -> int:
        """How many more of its runs `max_active_runs` allows."""
        return max(0, self.most - (self.active - self.apart))


class WaitingRun(Struct, frozen=True):
    """A run that waits until it may start.

    Attributes:
        position: Orders runs by the time at which they began to wait.
        apart: A limit of its backfill counts it, not that of its DAG.
    """

    dag: int
    run: int
    position: int
    apart: bool = False


class LimitUse(Struct, frozen=True):
    """How much of a limit is used.

    Attributes:
        name: `runs:tag:<tag>`.
        slots: How many runs may be active.
        active: How many are.
        waiting: How many wait.
    """

    name: str
    slots: int
    active: int
    waiting: int

    @property
    def free(self) -> int:
        """How many more may start."""
        return max(0, self.slots - self.active)

    def describe(self) -> str:
        """Return what a run that lacks room here waits for."""
        tag = self.name.removeprefix(RUNS)
        return f"tag {tag}: {self.active} of {self.slots} runs active"


def limits_of_tags(tags: Iterable[str], limits: Collection[str]) -> frozenset[str]:
    """Return the limits that hold the runs of a DAG with such tags.

    Args:
        tags: The tags.
        limits: The limits that there are.
    """
    return frozenset(name for tag in tags if (name := f"{RUNS}{tag}") in limits)


def count_use(limits: Mapping[str, int], dags: Iterable[DagRuns]) -> dict[str, LimitUse]:
    """Return how much of each limit is used.

    Args:
        limits: Name → how many runs may be active.
        dags: All DAGs with runs that are active or wait.
    """
    active, waiting = dict.fromkeys(limits, 0), dict.fromkeys(limits, 0)
    for dag in dags:
        for name in dag.limits:
            active[name] += dag.active
            waiting[name] += dag.queued
    return {
        name: LimitUse(name, slots, active[name], waiting[name]) for name, slots in limits.items()
    }


def free_for(dag: DagRuns, use: Mapping[str, LimitUse]) -> int:
    """Return how many more runs of a DAG its limits allow, `max_active_runs` apart."""
    return min((use[name].free for name in dag.limits), default=dag.queued)


def choose_runs(
    waiting: Iterable[WaitingRun], dags: Mapping[int, DagRuns], use: Mapping[str, LimitUse]
) -> list[WaitingRun]:
    """Return the runs that start now, in the order in which they do.

    Args:
        waiting: Runs that wait; of each DAG the first ones, as many as may find room.
        dags: Their DAGs, by number.
        use: The limits.
    """
    free = {name: each.free for name, each in use.items()}
    room = {number: dag.room for number, dag in dags.items()}
    chosen = []
    for run in sorted(waiting, key=lambda each: (-dags[each.dag].priority, each.position)):
        limits = dags[run.dag].limits
        if not (run.apart or room[run.dag]) or not all(free[name] for name in limits):
            continue
        room[run.dag] -= not run.apart
        for name in limits:
            free[name] -= 1
        chosen.append(run)
    return chosen
