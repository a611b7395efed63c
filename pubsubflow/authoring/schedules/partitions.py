"""Partition mappers: how the partition keys of events become those of runs."""

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from pubsubflow.authoring.schedules.dataset_expressions import DatasetExpression, written_uri
from pubsubflow.authoring.source_location import definition_error, suggestion
from pubsubflow.authoring.validation import whole
from pubsubflow.errors import DefinitionError
from pubsubflow.model.schedule.partitions import (
    Again,
    FanOut,
    Fixed,
    Identity,
    Mapper,
    Partitioning,
    Product,
    RollUp,
    Unit,
    rolls_up,
)

Mappers = Mapper | Mapping[DatasetExpression | str, Mapper]
M = TypeVar("M", RollUp, FanOut)

identity = Identity()


def fixed(key: str) -> Mapper:
    """Map every event to one key.

    Raises:
        DefinitionError: The key is not a non-empty string.
    """
    return Fixed(_key(key, "fixed"))


def roll_up(*, to: Unit, of: Unit, tz: str = "UTC") -> Mapper:
    """Roll smaller windows up into a larger one: hour → day → week → month → year.

    Keys are in ISO 8601: `2026-11-20T14`, `2026-11-20`, `2026-W47`, `2026-11`, `2026`. A run
    starts when all windows of its larger one are complete, or as many as `at_least=` of
    `partitioned` requires.

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
    """Map one key to several: a window to the smaller ones in it, or by a table.

    Args:
        of: The window of the events.
        to: The windows of the runs.
        tz: IANA zone in which days begin.
        table: In place of windows, key of an event → keys of runs; other keys map to none.

    Raises:
        DefinitionError: The windows do not nest, the zone is unknown, or the table is invalid.
    """
    if table is None:
        if of is None or to is None:
            raise definition_error(
                "fan_out takes of= and to=, as in fan_out(of='day', to='hour'), or table="
            )
        return _windows(lambda: FanOut(of, to, tz), "fan_out")
    if of is not None or to is not None:
        raise definition_error("fan_out takes of= and to=, or table=, not both")
    if not isinstance(table, Mapping) or not table:
        raise definition_error(
            f"fan_out: table must be a dict such as {{'eu': ['de', 'pl']}}, not {table!r}"
        )
    return FanOut(table={_key(key, "fan_out"): _keys(keys) for key, keys in table.items()})


def product(*parts: Mapper, separator: str = "|") -> Mapper:
    """Map keys of several dimensions, such as `2026-11-20|eu`, by one mapper each.

    Args:
        parts: The mappers, in the order of the key's parts; at least two.
        separator: The string between the parts of a key.

    Raises:
        DefinitionError: An argument is invalid.
    """
    _key(separator, "product: separator")
    if len(parts) < 2:  # noqa: PLR2004 - a product of one is that one
        raise definition_error("product takes at least two mappers; use a single one by itself")
    for part in parts:
        if isinstance(_mapper(part), Product):
            raise definition_error(
                "product: a product cannot be a part; list all mappers in one product"
            )
    return Product(parts, separator)


def partitioning_by(
    by: object, uris: Collection[str], at_least: object, again: Again | None
) -> Partitioning:
    """Return how keys map.

    Args:
        by: A mapper, or a mapping of datasets to mappers.
        uris: The datasets and patterns of the condition.
        at_least: How many parts of a window suffice; None for all.
        again: `each`, `never`, or None for the default of the mappers.

    Raises:
        DefinitionError: An argument is invalid.
    """
    default: Mapper = identity
    single: dict[str, Mapper] = {}
    if isinstance(by, Mapping):
        for dataset, mapper in by.items():
            if isinstance(dataset, DatasetExpression):
                uri = dataset.dataset_input.uri
            else:
                uri = written_uri(dataset)
            if uri not in uris:
                raise definition_error(
                    f"partitioned: by= names {uri!r}, not in it{suggestion(uri, uris)}"
                )
            single[uri] = _mapper(mapper)
    else:
        default = _mapper(by)
    if again not in (None, "each", "never"):
        raise definition_error(f"partitioned: again= takes 'each' or 'never', not {again!r}")
    if at_least is None:
        return Partitioning(default, single, again=again)
    try:
        least = whole(1)(at_least)
    except (TypeError, ValueError) as error:
        raise definition_error(f"partitioned: at_least={at_least!r} {error}") from None
    # Without a window there is nothing to count: the user means `.at_least()` of a dataset.
    if not any(map(rolls_up, (default, *single.values()))):
        raise definition_error(
            "partitioned: at_least= counts the parts of a window; give by=roll_up(to=…, of=…), "
            "or write .at_least(…) on the dataset to count its events"
        )
    return Partitioning(default, single, least, again)


def _mapper(value: object) -> Mapper:
    if isinstance(value, Mapper):
        return value
    raise definition_error(
        f"{value!r} is not a partition mapper; use identity, fixed(…), roll_up(…), fan_out(…) or "
        "product(…)"
    )


def _windows(make: Callable[[], M], name: str) -> M:
    try:
        return make()
    except DefinitionError as error:
        raise definition_error(f"{name}: {error.message}") from error
    except TypeError as error:
        raise definition_error(
            f"{name} takes 'hour', 'day', 'week', 'month', 'year': {error}"
        ) from error


def _keys(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple | set | frozenset) or not value:
        raise definition_error(f"fan_out: a table holds lists of keys, not {value!r}")
    keys = dict.fromkeys(_key(key, "fan_out") for key in value)
    return tuple(sorted(keys) if isinstance(value, set | frozenset) else keys)


def _key(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise definition_error(f"{what} takes a non-empty string, not {value!r}")
    return value
