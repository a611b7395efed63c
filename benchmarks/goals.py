"""Goals: what the product has to reach, each with the figures of `make bench` that decide it."""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct
from rich.table import Table

from benchmarks.figures import over_floor

Figures = Mapping[str, Sequence[Mapping[str, Any]]]


class Goal(Struct, frozen=True):
    """A goal; it is met if all of its figures are.

    Attributes:
        text: What is to be reached, on two cores with fsync on.
        scenario: Module that measures it.
        figures: Patterns of names of its figures; each finds one or more.
    """

    text: str
    scenario: str
    figures: tuple[str, ...]


_HOP = "task end → next DAG's first line, p50"
GOALS = (
    Goal("hop p50, sync and async", "hot_path", (f"{_HOP}, sync", f"{_HOP}, async")),
    Goal("hop p50 as a multiple of the bare loop", "hot_path", ("hop_floor_ratio, *",)),
    Goal("hop p50 of single events, 50 ms apart", "hop_costs", ("hops 50 ms apart, p50, *",)),
    Goal(
        "hop p99 and p99.9 under 500 events a second",
        "hop_costs",
        ("event → first line at 500 events a second, p99*",),
    ),
    Goal(
        "pauses of the garbage collector under 500 events a second",
        "hop_costs",
        ("longest pause of the garbage collector *",),
    ),
    Goal("CPU of all processes a hop", "hop_costs", ("CPU of a hop, *",)),
    Goal("chain of 10 DAGs", "hot_path", ("chain of 10 DAGs, *",)),
    Goal("posts a second of one client", "load", ("posts a second, 1 connection",)),
    Goal("posts a second of 32 connections", "load", ("posts a second, 32 connections",)),
    Goal(
        "no-op tasks a second, sync and async side by side",
        "throughput",
        ("no-op task runs a second, *, ten side by side",),
    ),
    Goal("first and later `up` to ready", "idle", ("first `up` *", "later `up` *")),
    Goal(
        "`dags list`, `runs list`",
        "commands",
        ("`pubsubflow dags list`, *", "`pubsubflow runs list`, *"),
    ),
    Goal("idle, all processes: CPU and memory", "idle", ("idle, *",)),
    Goal(
        "1,000 files with a DAG each: first start, unchanged restart",
        "files",
        ("1,000 files with a DAG each, first start", "1,000 files with a DAG each, restart"),
    ),
    Goal(
        "1,000 DAGs with 5 tasks each of one file, known",
        "loader",
        ("first start → 1,000 DAGs x 5 tasks of one file known",),
    ),
    Goal(
        "10,000 files: restart, one more",
        "files",
        ("10,000 files with a DAG each, restart", "10,000 files with a DAG each, one more"),
    ),
    Goal(
        "CPU of a manager a result, of DAGs of 100 to 10,000 tasks",
        "large_dags",
        ("* a result*",),
    ),
    Goal(
        "an event with 1,000,000 subscriptions in the store and 10 that match, to an empty store",
        "pending",
        ("*1,000,000 subscriptions*",),
    ),
    Goal("recovery after kill -9", "recovery", ("*",)),
    Goal("a file is saved → in force", "edits", ("*",)),
    Goal("two daemons on three NATS servers", "cluster", ("*",)),
    Goal("WAL and disk for a million events", "growth", ("*",)),
    Goal("large results and output", "large_values", ("*",)),
    Goal("hops on a busy disk", "busy_disk", ("*, a busy disk",)),
    Goal("hours of memory", "hours", ("*",)),
    Goal("an attempt of Airflow's, of each kind", "airflow", ("an attempt of Airflow's, *",)),
    Goal(
        "asset event → first line of an Airflow task",
        "airflow",
        ("asset event → first line of an Airflow task, *",),
    ),
    Goal("10,000 `DateTimeTrigger`s on our clock", "airflow", ("* DateTimeTriggers",)),
    Goal("private memory of a file's process", "airflow", ("a file process",)),
)


def scenarios() -> tuple[str, ...]:
    """Return the scenarios that decide the goals, each once."""
    return tuple(dict.fromkeys(goal.scenario for goal in GOALS))


def of(goal: Goal, figures: Figures) -> list[Mapping[str, Any]] | None:
    """Return the figures of a goal; None if one of its patterns finds none."""
    measured = figures.get(goal.scenario, ())
    found = []
    for pattern in goal.figures:
        matching = [each for each in measured if fnmatchcase(each["name"], pattern)]
        if not matching:
            return None
        found += matching
    return found


def table(figures: Figures, names: Collection[str]) -> Table:
    """Return a row for each figure of each goal that some scenarios decide."""
    made = Table("goal", "figure", "measured", "target", "met", "÷ floor", title="Goals")
    for goal in GOALS:
        if goal.scenario not in names:
            continue
        found = of(goal, figures)
        if found is None:
            made.add_row(goal.text, f"[yellow]not measured: {goal.scenario}")
            continue
        for number, each in enumerate(found):
            text = "" if number else goal.text
            made.add_row(text, each["name"], *measured_cells(each), end_section=each is found[-1])
    return made


def measured_cells(figure: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return value, target, whether it is met, and how many times its floor it is, as text."""
    met = "[green]met" if figure["met"] else "[red]missed"
    value = f"{figure['value']:g} {figure['unit']}"
    return value, f"{figure['target']:g}", met, over_floor(figure)
