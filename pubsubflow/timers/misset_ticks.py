"""Misset ticks: timers of ticks that lie further ahead than the next tick from now on.

A tick's timer is set by the tick before. If that fired while the clock was ahead, the next one is
as far ahead, and the schedule would be silent until then.
"""

from collections.abc import Iterable
from datetime import datetime

from pubsubflow.model.schedule.conditions import ticks
from pubsubflow.model.schedule.timetable import OnceSpec, next_tick
from pubsubflow.store.read.timers import StoredTick


def find_misset_ticks(
    stored: Iterable[StoredTick], now: datetime
) -> list[tuple[StoredTick, datetime]]:
    """Return the ticks that are too far ahead, with the moments at which they are due.

    Args:
        stored: The timers of ticks.
        now: The time.
    """
    found = []
    for each in stored:
        schedule = each.spec.schedule
        parts = () if schedule is None else ticks(schedule.condition)
        part = next((part for part in parts if part.slot == each.slot), None)
        if part is None or isinstance(part.timetable, OnceSpec):
            continue
        due = next_tick(part.timetable, now, each.spec.start, each.spec.end)
        if due is not None and each.due_at > due:
            found.append((each, due))
    return found
