import msgspec
import pytest

from pubsubflow import DAG
from pubsubflow.errors import InvalidInput
from pubsubflow.model.runs.params import validate_params


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
        ({}, "params: 'day' is a required property"),
        ({"day": 1}, "param 'day': 1 is not of type 'string'"),
        ({"day": "a", "limit": 1.5}, "param 'limit': 1.5 is not of type 'integer'"),
        ({"day": "a", "window": {}}, "param 'window'"),
        ({"day": "a", "limt": 1}, "did you mean 'limit'?"),
    ],
)
def test_params_that_violate_the_schema_are_refused(given, message):
    with pytest.raises(InvalidInput, match=message):
        validate_params(spec(Params), given)
