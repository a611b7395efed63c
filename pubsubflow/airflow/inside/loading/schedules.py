"""Schedules of Airflow's DAGs: their timetables, assets and watchers, as plain values."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from airflow.sdk.serde import serialize

from pubsubflow.airflow.inside.loading.assets import asset_of
from pubsubflow.airflow.inside.loading.crons import is_plain_cron
from pubsubflow.airflow.inside.loading.partitions import (
    MAPPERS_REMEDY,
    MapperRefusedError,
    partitioning_of,
)
from pubsubflow.airflow.inside.loading.ticks import TimetableRefusedError, ticks_of


class AddsNotes(Protocol):
    """Takes lines about what has no counterpart."""

    def add(self, line: str) -> None:
        """Add a line."""


class Dates:
    """What timetables need to know of their DAG.

    Args:
        dag: The DAG.
    """

    def __init__(self, dag: Any) -> None:
        start = dag.start_date
        self.start = start if isinstance(start, datetime) else None
        self.catchup = bool(dag.catchup)


def schedule_of(dag: Any, notes: AddsNotes) -> dict[str, Any] | None:
    """Return the schedule of a DAG; None for manual runs alone."""
    return _schedule(dag.timetable, Dates(dag), notes)


def is_computed(table: Any) -> bool:
    """Return whether only Airflow can compute the ticks of a timetable."""
    kind = type(table).__name__
    if kind == "AssetOrTimeSchedule":
        return is_computed(table.timetable)
    if kind in ("CronDataIntervalTimetable", "CronTriggerTimetable"):
        return not is_plain_cron(_of_table(table, "expression"))
    if kind in ("DeltaDataIntervalTimetable", "DeltaTriggerTimetable"):
        return not isinstance(_of_table(table, "delta"), timedelta)
    return kind not in _TIMETABLES and kind != "NullTimetable"


def is_interval(table: Any) -> bool:
    """Return whether the date of a run is the start of the interval that ends with its tick."""
    return "DataInterval" in type(table).__name__


def _schedule(table: Any, dates: Dates, notes: AddsNotes) -> dict[str, Any] | None:
    kind = type(table).__name__
    if kind == "NullTimetable":
        return None
    make = _TIMETABLES.get(kind)
    if make is None and ("Partition" in kind or getattr(table, "partitioned", False)):
        reason = "it makes runs of partitions by rules of the team's own"
        return {"custom": _name_of(table), "reason": reason, "remedy": MAPPERS_REMEDY}
    if make is not None and not is_computed(table):
        return make(table, dates, notes)
    if make is not None and kind == "AssetOrTimeSchedule":
        return make(table, dates, notes)
    try:
        return ticks_of(table, start=dates.start, catchup=dates.catchup, now=datetime.now(UTC))
    except TimetableRefusedError as error:
        return {"custom": _name_of(table), "reason": str(error)}


def _name_of(table: Any) -> str:
    return f"{type(table).__module__}.{type(table).__name__}"


def _cron(table: Any, *_: Any) -> dict[str, Any]:
    zone = _of_table(table, "timezone")
    return {
        "cron": _of_table(table, "expression"),
        "tz": str(getattr(zone, "name", zone)),
        "data_interval": is_interval(table),
    }


def _delta(table: Any, *_: Any) -> dict[str, Any]:
    seconds = _of_table(table, "delta").total_seconds()
    return {"every": seconds, "data_interval": is_interval(table)}


def _several(table: Any, dates: Dates, notes: AddsNotes) -> dict[str, Any]:
    return {"any": [_schedule(each, dates, notes) for each in _of_table(table, "timetables")]}


def _assets_or_time(table: Any, dates: Dates, notes: AddsNotes) -> dict[str, Any]:
    timed = _schedule(table.timetable, dates, notes)
    condition = _condition(table.asset_condition, notes)
    return condition if timed is None else {"any": [timed, condition]}


def _partitioned(table: Any, _: Dates, notes: AddsNotes) -> dict[str, Any]:
    condition = _condition(table.asset_condition, notes)
    try:
        return {"partitioned": condition, **partitioning_of(table)}
    except MapperRefusedError as error:
        return {"custom": _name_of(table), "reason": str(error), "remedy": MAPPERS_REMEDY}


_TIMETABLES: dict[str, Callable[[Any, Dates, AddsNotes], dict[str, Any] | None]] = {
    "CronTriggerTimetable": _cron,
    "CronDataIntervalTimetable": _cron,
    "DeltaDataIntervalTimetable": _delta,
    "DeltaTriggerTimetable": _delta,
    "MultipleCronTriggerTimetable": _several,
    "AssetOrTimeSchedule": _assets_or_time,
    "AssetTriggeredTimetable": lambda table, _, notes: _condition(table.asset_condition, notes),
    "CronPartitionTimetable": _cron,
    "PartitionedAssetTimetable": _partitioned,
    "PartitionedAtRuntime": lambda *_: None,
    "OnceTimetable": lambda *_: {"once": True},
    "ContinuousTimetable": lambda *_: {"continuous": True},
}


def _of_table(table: Any, name: str) -> Any:
    """Return an attribute of a timetable; those of core have an underscore before it."""
    return getattr(table, name) if hasattr(table, name) else getattr(table, f"_{name}")


def _condition(asset: Any, notes: AddsNotes) -> dict[str, Any]:
    kind = type(asset).__name__.removeprefix("Serialized")
    if kind in ("AssetAny", "AssetAll"):
        sides = [_condition(each, notes) for each in asset.objects]
        return {"any" if kind == "AssetAny" else "all": sides}
    made = asset_of(asset)
    if made is None:
        return {"custom": kind}
    found: dict[str, Any] = {"asset": {"name": made.name, "uri": made.uri, "kind": made.kind}}
    watchers = list(getattr(asset, "watchers", ()))
    if watchers:
        found["watch"] = _watch(watchers[0])
    for other in watchers[1:]:
        notes.add(f"the watcher {other.name!r} of asset {made.name!r} is not started: it has two")
    return found


def _watch(watcher: Any) -> dict[str, Any]:
    """Return the trigger of a watcher, as it is serialised for a wait, too."""
    classpath, kwargs = watcher.trigger.serialize()
    serialised = {name: serialize(value) for name, value in kwargs.items()}
    return {"classpath": classpath, "kwargs": json.loads(json.dumps(serialised, default=str))}
