"""Partitions of Airflow's assets: mappers as plain values, and the partition of a run.

See `airflow.timetables.simple.PartitionedAssetTimetable` and `airflow.partition_mappers`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pendulum
from airflow.serialization.encoders import coerce_to_core_timetable

from pubsubflow.airflow.inside.loading.assets import asset_of

_UNITS = ("hour", "day", "week", "month", "quarter", "year")
_PERIODS = {f"StartOf{unit.title()}Mapper": unit for unit in _UNITS}
_WINDOWS = {f"{unit.title()}Window": unit for unit in _UNITS}

MAPPERS_REMEDY = (
    "map the keys by Airflow's own mappers (StartOf…, Product, Rollup, FanOut, Allowed, FixedKey), "
    "or write the DAG as one of pubsubflow with partitioned(…, by=…)"
)
"""What to do about a mapper, window or policy of the team's own."""


class MapperRefusedError(Exception):
    """A mapper has no counterpart; the text says why."""


def partitioning_of(table: Any) -> dict[str, Any]:
    """Return how the keys of a `PartitionedAssetTimetable` map.

    Raises:
        MapperRefusedError: A mapper has no counterpart.
    """
    by_asset = []
    for asset, mapper in table.partition_mapper_config.items():
        made = asset_of(asset)
        if made is None or made.kind == "alias":
            raise MapperRefusedError("partition_mapper_config takes single assets alone here")
        named = {"name": made.name, "uri": made.uri, "kind": made.kind}
        by_asset.append({"asset": named, "by": _mapper(mapper)})
    return {"by": _mapper(table.default_partition_mapper), "by_asset": by_asset}


def _mapper(mapper: Any) -> dict[str, Any]:
    kind = type(mapper).__name__
    if not type(mapper).__module__.startswith("airflow."):
        raise MapperRefusedError(f"its partition mapper {kind} is one of the team's own")
    make = _periods if kind in _PERIODS else _MAPPERS.get(kind)
    if make is None:
        raise MapperRefusedError(f"its partition mapper {kind} has no counterpart")
    return make(mapper)


def _product(mapper: Any) -> dict[str, Any]:
    parts = [_mapper(_single(part)) for part in mapper.mappers]
    return {"kind": "product", "parts": parts, "separator": mapper.delimiter}


def _single(part: Any) -> Any:
    """Return a part of a product as that uses it: by its key alone."""
    if type(part).__name__ == "FanOutMapper":
        raise MapperRefusedError("a FanOutMapper is a part of its ProductMapper")
    return part.upstream_mapper if type(part).__name__ == "RollupMapper" else part


def _periods(mapper: Any) -> dict[str, Any]:
    # Those of Airflow 3.2's SDK have no zone: its scheduler maps in UTC.
    given = getattr(mapper, "_timezone", "UTC")
    zone = str(getattr(given, "name", given))
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise MapperRefusedError(f"the time zone {zone!r} of a mapper has no IANA name") from error
    return {
        "kind": "periods",
        "unit": _PERIODS[type(mapper).__name__],
        "written": mapper.output_format,
        "read": mapper.input_format,
        "tz": zone,
    }


def _roll_up(mapper: Any) -> dict[str, Any]:
    policy: Any = getattr(mapper, "wait_policy", None)
    kind = type(policy).__name__
    if kind not in ("WaitForAll", "MinimumCount", "NoneType"):
        raise MapperRefusedError(f"its wait policy {kind} is one of the team's own")
    at_least = policy.n if kind == "MinimumCount" else None
    by = _mapper(mapper.upstream_mapper)
    segments = _segments(mapper.window)
    if segments is None:
        if by["kind"] != "periods":
            raise MapperRefusedError("its roll-up of periods has no StartOf… mapper")
        return {"kind": "roll_up", "by": by, **_window(mapper.window), "at_least": at_least}
    if by["kind"] != "fixed":
        raise MapperRefusedError("its roll-up of segments has no FixedKeyMapper")
    return {"kind": "collect", "to": by["key"], "keys": segments, "at_least": at_least}


def _fan_out(mapper: Any) -> dict[str, Any]:
    by, to = _mapper(mapper.upstream_mapper), _mapper(mapper.downstream_mapper)
    segments = _segments(mapper.window)
    if segments is not None:
        if by["kind"] not in ("identity", "fixed") or to["kind"] != "identity":
            raise MapperRefusedError("its fan-out to segments is not by IdentityMapper")
        return {"kind": "scatter", "keys": segments}
    if by["kind"] != "periods" or to["kind"] != "periods":
        raise MapperRefusedError("its fan-out to periods is not by StartOf… mappers")
    found = {"kind": "fan_out", "by": by, **_window(mapper.window), "written": to["written"]}
    most = getattr(mapper, "max_downstream_keys", None)
    return found if most is None else {**found, "most": most}


def _segments(window: Any) -> list[str] | None:
    if type(window).__name__ != "SegmentWindow":
        return None
    return sorted(window._segments)  # noqa: SLF001 - it has no other


def _window(window: Any) -> dict[str, Any]:
    kind = type(window).__name__
    if kind not in _WINDOWS or not type(window).__module__.startswith("airflow."):
        raise MapperRefusedError(f"its window {kind} is one of the team's own")
    backward = getattr(window, "direction", None) == "backward"
    return {"window": _WINDOWS[kind], "backward": backward}


_MAPPERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "IdentityMapper": lambda _: {"kind": "identity"},
    "FixedKeyMapper": lambda mapper: {"kind": "fixed", "key": mapper.downstream_key},
    "AllowedKeyMapper": lambda mapper: {"kind": "allowed", "keys": list(mapper.allowed_keys)},
    "ProductMapper": _product,
    "RollupMapper": _roll_up,
    "FanOutMapper": _fan_out,
}


def makes_partitions(table: Any) -> bool:
    """Return whether a timetable gives its runs partitions by their ticks."""
    return type(table).__name__ == "CronPartitionTimetable"


def partition_of(
    table: Any, key: str | None, tick: datetime | None
) -> tuple[str | None, datetime | None]:
    """Return the partition key and date of a run, as its timetable has them.

    Args:
        table: The timetable of the DAG.
        key: The partition that the run was started with, if it was.
        tick: Of a run by time.
    """
    kind = type(table).__name__
    if key is None and tick is not None and makes_partitions(table):
        core: Any = coerce_to_core_timetable(table)
        date, key = core._get_partition_info(pendulum.instance(tick.astimezone(UTC)))  # noqa: SLF001 - what the scheduler calls
        return key, date
    if key is None or kind not in ("CronPartitionTimetable", "PartitionedAssetTimetable"):
        return key, None
    # Of releases that have dates of partitions.
    decode = getattr(coerce_to_core_timetable(table), "_decode_partition_date", None)
    return key, None if decode is None else decode(key)
