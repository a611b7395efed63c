"""Schedules of partitioned assets: Airflow's mappers become ours."""

from collections.abc import Callable
from typing import Any

from pubsubflow.airflow.outside.assets import dataset_uri
from pubsubflow.airflow.structure import AssetStructure
from pubsubflow.authoring.schedules.expressions import Schedule
from pubsubflow.authoring.schedules.policies import PolicySchedule
from pubsubflow.model.schedule.partitions import (
    FanOut,
    Fixed,
    Identity,
    Mapper,
    Partitioning,
    Product,
)
from pubsubflow.model.schedule.written_periods import (
    MOST_KEYS,
    KeyRollUp,
    PeriodFanOut,
    PeriodRollUp,
    Periods,
    Scatter,
)


def partitioned_schedule(condition: Schedule, found: dict[str, Any]) -> Schedule:
    """Return a condition that holds per partition key; each time it holds is a run, as in Airflow.

    Args:
        condition: The condition within one partition.
        found: How keys map: `by`, and `by_asset`.

    Raises:
        DefinitionError: A mapper cannot be used.
    """
    by_uri = {
        dataset_uri(AssetStructure(**each["asset"])): mapper_of(each["by"])
        for each in found["by_asset"]
    }
    partitioning = Partitioning(mapper_of(found["by"]), by_uri, again="each")
    return PolicySchedule(condition, partitioning=partitioning)


def mapper_of(found: dict[str, Any]) -> Mapper:
    """Return the mapper of its plain form, which `inside.loading.partitions` makes."""
    return _MAPPERS[found["kind"]](found)


def _periods(found: dict[str, Any]) -> Periods:
    return Periods(found["unit"], found["written"], found["read"], found["tz"])


def _product(found: dict[str, Any]) -> Product:
    return Product(tuple(map(mapper_of, found["parts"])), found["separator"])


_MAPPERS: dict[str, Callable[[dict[str, Any]], Mapper]] = {
    "identity": lambda _: Identity(),
    "fixed": lambda found: Fixed(found["key"]),
    "allowed": lambda found: FanOut(table={key: (key,) for key in found["keys"]}),
    "periods": _periods,
    "product": _product,
    "roll_up": lambda found: PeriodRollUp(
        _periods(found["by"]), found["window"], found["backward"], found["at_least"]
    ),
    "collect": lambda found: KeyRollUp(found["to"], tuple(found["keys"]), found["at_least"]),
    "fan_out": lambda found: PeriodFanOut(
        _periods(found["by"]),
        found["window"],
        found["written"],
        found["backward"],
        found.get("most", MOST_KEYS),
    ),
    "scatter": lambda found: Scatter(tuple(found["keys"])),
}
