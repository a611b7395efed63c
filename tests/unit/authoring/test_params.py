from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given as generated
from hypothesis import strategies as st
from msgspec import Meta

from pubsubflow import DAG
from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.runs.patterns import check_pattern


class Window(msgspec.Struct):
    first: str
    last: str = "today"


class Params(msgspec.Struct):
    day: str
    window: Window | None = None
    limit: int = 10
    kind: str = "full"


def spec(params):
    return DAG("x", params=params).to_spec("x.py", "hash")


def test_given_params_go_over_the_defaults():
    made = spec({"day": "monday", "limit": 10, "ratio": 1, "any": None, "tags": []})
    assert validate_params(made, None) == made.params
    given = {"day": "friday", "ratio": 0.5, "any": {"x": 1}, "tags": ["a"]}
    assert validate_params(made, given) == made.params | given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dya": 1}, "DAG 'x' has no param 'dya'; did you mean 'day'?"),
        ({"zzz": 1}, "has no param 'zzz'; it has: day, limit, on"),
        ({"day": 5}, "param 'day' must be a string like its default 'monday', not the number 5"),
        ({"limit": "5"}, "param 'limit' must be a number"),
        ({"limit": True}, "param 'limit' must be a number .* not the boolean True"),
        ({"limit": None}, "param 'limit' must be a number .* not the null None"),
        ({"on": 1}, "param 'on' must be a boolean"),
    ],
)
def test_params_that_do_not_fit_their_defaults_are_refused(given, message):
    with pytest.raises(InvalidInput, match=message):
        validate_params(spec({"day": "monday", "limit": 10, "on": True}), given)


def test_a_dag_without_params_takes_none():
    assert validate_params(spec(None), {}) == {}
    with pytest.raises(InvalidInput, match="it takes none"):
        validate_params(spec(None), {"x": 1})


def test_params_of_a_type_are_checked_against_its_schema():
    given = {"day": "monday", "window": {"first": "a"}}
    assert validate_params(spec(Params), given) == given | {
        "window": {"first": "a"},
        "limit": 10,
        "kind": "full",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "'day' must be given: it has no default"),
        ({"day": 1}, "param 'day': 1 is not of type 'string'"),
        ({"day": "a", "limit": 1.5}, "param 'limit': 1.5 is not of type 'integer'"),
        ({"day": "a", "window": {}}, "param 'window'"),
        ({"day": "a", "limt": 1}, "did you mean 'limit'?"),
    ],
)
def test_params_that_violate_the_schema_are_refused(given, message):
    with pytest.raises(InvalidInput, match=message):
        validate_params(spec(Params), given)


class Colour(Enum):
    RED = "red"


class Item(msgspec.Struct):
    at: datetime
    price: Decimal = Decimal(1)


class Typed(msgspec.Struct):
    """One param of each type that JSON has no type for, alone and inside of others."""

    day: date = date(2026, 1, 1)
    at: datetime | None = None
    zoned: Annotated[datetime, Meta(tz=True)] = datetime(2026, 1, 1, tzinfo=UTC)
    local: Annotated[datetime, Meta(tz=False)] | int = 0
    clock: time = time(12)
    every: timedelta = timedelta(hours=1)
    price: Decimal = Decimal("1.10")
    ident: UUID | None = None
    raw: bytes = b""
    count: Annotated[int, Meta(ge=0)] = 0
    ratio: float = 0.5
    colour: Colour | Literal[1] = Colour.RED
    items: list[Item] = []
    days: dict[str, list[date]] = {}
    by_number: dict[int, time] = {}
    by_day: dict[date, int] = {}
    pair: tuple[date, int | None] | None = None


TYPED = spec(Typed)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        *[("day", value) for value in ("banana", "2026-13-45", "2026-02-30")],
        ("day", "2026-11-20T10:00:00Z"),
        *[("at", value) for value in ("yesterday", "2026-11-20", 5)],
        *[("zoned", value) for value in ("2026-11-20T10:00:00", "2026-11-20T25:00:00Z")],
        *[("local", value) for value in ("2026-11-20T10:00:00Z", 1.5)],
        *[("clock", value) for value in ("noon", "25:00")],
        *[("every", value) for value in ("forever", "1h", 60)],
        *[("price", value) for value in ("abc", "")],
        *[("ident", value) for value in ("not-a-uuid", "01a225c2")],
        *[("raw", value) for value in ("?", "YQ")],
        *[("count", value) for value in (1.0, -1, True, "1")],
        *[("colour", value) for value in ("blue", 2, True)],
        ("items", [{"at": "now"}]),
        ("items", [{"at": "2026-11-20T10:00:00Z", "price": "x"}]),
        *[("days", value) for value in ({"a": ["x"]}, {"a": "2026-11-20"})],
        *[("by_number", value) for value in ({"a": "12:00:00"}, {"1": "x"})],
        ("by_day", {"monday": 1}),
        *[("pair", value) for value in (["2026-11-20"], ["x", 1], ["2026-11-20", 1, 1])],
    ],
)  # fmt: skip
def test_a_param_that_its_type_refuses_is_refused_before_a_run_exists(param, value):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({param: value}, Typed, str_keys=True)
    with pytest.raises(InvalidInput, match=f"param '{param}"):
        validate_params(TYPED, {param: value})


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(0, 3) | st.sampled_from(
        ["", "x", "2026-11-20", "2026-11-20T10:00:00", "2026-11-20T10:00:00Z", "12:00:00", "PT5M",
         "1.5", "01a225c2-d447-79c3-8732-8c2d226d1719", "YQ==", "red", "1"]
    ),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["at", "price", "1", "a", "2026-11-20"]), inner, max_size=2),
)  # fmt: skip


@generated(st.dictionaries(st.sampled_from(sorted(TYPED.params)), ANY, max_size=3))
def test_what_the_edge_lets_in_the_runner_can_read(given):
    try:
        params = validate_params(TYPED, given)
    except InvalidInput:
        return
    msgspec.convert(params, Typed, str_keys=True)


def test_params_of_every_type_are_taken():
    given: dict[str, Any] = {
        "day": "2026-11-20", "at": "2026-11-20T10:00:00", "zoned": "2026-11-20T10:00:00+01:00",
        "local": "2026-11-20T10:00:00", "clock": "12:00:00", "every": "PT5M", "price": "2.50",
        "ident": "01a225c2-d447-79c3-8732-8c2d226d1719", "raw": "YQ==", "count": 3, "ratio": 1,
        "colour": 1, "items": [{"at": "2026-11-20T10:00:00Z"}], "days": {"a": ["2026-11-20"]},
        "by_number": {"-3": "12:00:00"}, "by_day": {"2026-11-20": 1}, "pair": ["2026-11-20", None],
    }  # fmt: skip
    assert validate_params(TYPED, given) == TYPED.params | given
    assert msgspec.convert(given, Typed, str_keys=True).by_number == {-3: time(12)}


def test_a_default_that_is_not_of_its_type_is_a_mistake():
    class Wrong(msgspec.Struct):
        day: date = "soon"  # type: ignore[assignment]

    with pytest.raises(DefinitionError, match="default of param 'day' does not fit its type"):
        DAG("x", params=Wrong)


class Named(msgspec.Struct):
    name: Annotated[str, Meta(pattern="^(a+)+$")] = "a"


def test_a_pattern_takes_no_time_that_a_stranger_chooses():
    """Python's engine needs longer than the world has existed for this text."""
    made = spec(Named)
    assert validate_params(made, {"name": "aaa"}) == {"name": "aaa"}
    with pytest.raises(InvalidInput, match="does not match"):
        validate_params(made, {"name": "a" * 10_000 + "!"})


@pytest.mark.parametrize(
    ("pattern", "says"),
    [("(?=a)b", "look-around"), (r"(a)\1", "backreferences"), ("[", "unclosed")],
)
def test_a_pattern_that_cannot_be_used_is_a_mistake(pattern, says):
    kind = msgspec.defstruct("P", [("name", Annotated[str, Meta(pattern=r"x")], "x")])
    assert spec(kind)
    with pytest.raises(DefinitionError, match=says):
        check_pattern(pattern)
    if pattern != "[":  # msgspec refuses that one itself
        kind = msgspec.defstruct("P", [("name", Annotated[str, Meta(pattern=pattern)], "ab")])
        with pytest.raises(DefinitionError, match=f"params P: the pattern .*{says}"):
            DAG("x", params=kind)
