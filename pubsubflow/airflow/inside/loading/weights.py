"""Priority weights of tasks: their own one, with those that their weight rule adds."""

import importlib
from types import SimpleNamespace
from typing import Any

from airflow.task.priority_strategy import get_airflow_priority_weight_strategies

from pubsubflow.airflow.inside.loading.schedules import AddsNotes


def weight_of(task: Any, notes: AddsNotes) -> int:
    """Return the weight of a task, as Airflow gives it to the instances of a run.

    Args:
        task: An operator, also a mapped one, of a whole DAG.
        notes: Get a rule of the team's own, as it is called once, for the first attempt.

    Raises:
        Exception: The weight rule is not known, or fails; it is an import error in Airflow, too.
    """
    own, rule = _rule(task.weight_rule)
    if own:
        name = type(rule).__name__
        notes.add(f"the weight rule {name} gives one weight for all attempts and instances")
    instance = SimpleNamespace(task=task, try_number=0, map_index=-1)
    return int(rule.get_weight(instance))


def _rule(given: Any) -> tuple[bool, Any]:
    """Return a weight rule, and whether it is one of the team's own.

    Airflow requires that a plugin has it, too. Here its path is enough.
    """
    known = get_airflow_priority_weight_strategies()
    if isinstance(given, str):
        if given in known:
            return False, known[given]()
        module, _, name = given.rpartition(".")
        given = getattr(importlib.import_module(module), name)
    rule = given() if isinstance(given, type) else given
    return type(rule) not in known.values(), rule
