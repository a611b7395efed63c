"""How partition keys of events become those of runs, as users write it."""

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from pubsubflow.authoring.datasets import Dataset, uri_of
from pubsubflow.authoring.schedules.dataset_expressions import Demand
from pubsubflow.authoring.source_location import mistake, nearest
from pubsubflow.authoring.validation import whole
from pubsubflow.errors import DefinitionError
from pubsubflow.model.schedule.partitions import (
    FanOut,
    Fixed,
    Identity,
    Mapper,
    Partitioning,
    Product,
    RollUp,
    Unit,
)

Mappers = Mapper | Mapping[Dataset | Demand | str, Mapper]
M = TypeVar("M", RollUp, FanOut)

identity = Identity()


def fixed(key: str) -> Mapper:
    """Let every event count for one key.

    Raises:
        DefinitionError: It is no text.
    """
    return Fixed(_key(key, "fixed"))


def roll_up(*, to: Unit, of: Unit, tz: str = "UTC") -> Mapper:
    """Let smaller windows make up a larger one: hour → day → week → month → year.

    Keys are texts of ISO 8601: `2026-11-20T14`, `2026-11-20`, `2026-W47`, `2026-11`, `2026`. A run
    starts when all windows of its larger one are there, or as many as `at_least` of `partitioned`
    says.

    Args:
        to: The window of the run.
        of: The windows of the events.
        tz: IANA zone in which days begin.

    Raises:
        DefinitionError: The windows do not nest, or the zone is unknown.
    """
    return _windows(lambda: RollUp(to, of, tz), "roll_up")


def fan_out(
    *,
    of: Unit | None = None,
    to: Unit | None = None,
    tz: str = "UTC",
    table: Mapping[str, str | list[str] | tuple[str, ...]] | None = None,
) -> Mapper:
    """Let one key count for several: a window for the smaller ones in it, or as a table says.

    Args:
        of: The window of the events.
        to: The windows of the runs.
        tz: IANA zone in which days begin.
        table: In place of windows, key of an event → keys of runs; other keys count for none.

    Raises:
        DefinitionError: The windows do not nest, the zone is unknown, or the table is none.
    """
    if table is None:
        if of is None or to is None:
            raise mistake(
                "fan_out takes of= and to=, as in fan_out(of='day', to='hour'), or table="
            )
        return _windows(lambda: FanOut(of, to, tz), "fan_out")
    if of is not None or to is not None:
        raise mistake("fan_out takes of= and to=, or table=, not both")
    if not isinstance(table, Mapping) or not table:
        raise mistake(
            f"fan_out: table must be a dict such as {{'eu': ['de', 'pl']}}, not {table!r}"
        )
    return FanOut(table={_key(key, "fan_out"): _keys(keys) for key, keys in table.items()})


def product(*parts: Mapper, separator: str = "|") -> Mapper:
    """Let keys have several dimensions, such as `2026-11-20|eu`, each with a mapper of its own.

    Args:
        parts: The mappers, in the order of the key's parts; at least two.
        separator: What stands between the parts of a key.

    Raises:
        DefinitionError: One of them is bad.
    """
    _key(separator, "product: separator")
    if len(parts) < 2:  # noqa: PLR2004 - a product of one is that one
        raise mistake("product takes at least two mappers; use a single one by itself")
    for part in parts:
        if isinstance(_mapper(part), Product):
            raise mistake("product: a product cannot be a part; list all mappers in one product")
    return Product(parts, separator)


def partitioning_by(by: object, uris: Collection[str], at_least: object) -> Partitioning:
    """Return how keys map.

    Args:
        by: A mapper, or a mapping of datasets to mappers.
        uris: What stands in the condition.
        at_least: How many parts of a window suffice; None for all.

    Raises:
        DefinitionError: One of them is bad.
    """
    default: Mapper = identity
    single: dict[str, Mapper] = {}
    if isinstance(by, Mapping):
        for dataset, mapper in by.items():
            uri = dataset.place.uri if isinstance(dataset, Demand) else uri_of(dataset)
            if uri not in uris:
                raise mistake(f"partitioned: by= names {uri!r}, not in it{nearest(uri, uris)}")
            single[uri] = _mapper(mapper)
    else:
        default = _mapper(by)
    if at_least is None:
        return Partitioning(default, single)
    try:
        least = whole(1)(at_least)
    except (TypeError, ValueError) as error:
        raise mistake(f"partitioned: at_least={at_least!r} {error}") from None
    if not any(map(_rolls_up, (default, *single.values()))):
        raise mistake(
            "partitioned: at_least= counts the parts of a window; give by=roll_up(to=…, of=…), "
            "or write .at_least(…) on the dataset to count its events"
        )
    return Partitioning(default, single, least)


def _rolls_up(mapper: Mapper) -> bool:
    if isinstance(mapper, Product):
        return any(map(_rolls_up, mapper.parts))
    return isinstance(mapper, RollUp)


def _mapper(value: object) -> Mapper:
    if isinstance(value, Mapper):
        return value
    raise mistake(
        f"{value!r} maps no partition keys; use identity, fixed(…), roll_up(…), fan_out(…) or "
        "product(…)"
    )


def _windows(make: Callable[[], M], name: str) -> M:
    try:
        return make()
    except DefinitionError as error:
        raise mistake(f"{name}: {error.message}") from error
    except TypeError as error:
        raise mistake(f"{name} takes 'hour', 'day', 'week', 'month', 'year': {error}") from error


def _keys(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple | set | frozenset) or not value:
        raise mistake(f"fan_out: a table holds lists of keys, not {value!r}")
    keys = dict.fromkeys(_key(key, "fan_out") for key in value)
    return tuple(sorted(keys) if isinstance(value, set | frozenset) else keys)


def _key(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise mistake(f"{what} takes a text that is not empty, not {value!r}")
    return value
