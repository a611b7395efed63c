"""Params with a schema, and params that are arguments of an `@dag` function."""

import re
from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pubsubflow import DAG, BashOperator, DefinitionError, Operator, Param, dag, task
from pubsubflow.authoring.template_checks import check_templates
from pubsubflow.errors import InvalidInput
from pubsubflow.model.runs.param_rules import find_fault, form_schema
from pubsubflow.model.runs.params import validate_params


def spec_of(**params):
    return DAG("d", params=params).to_spec("", "")


def test_a_param_is_json_schema():
    spec = spec_of(
        day=Param("2026-01-01", format="date", description="The day to load", title="Day"),
        rows=Param(10, type="integer", minimum=1, maximum=100),
        mode=Param("fast", enum=["fast", "full"], examples=["full"]),
        name=Param(type=str, pattern="^[a-z]+$", min_length=2),
        plain=1.5,
        anything=None,
    )
    assert spec.params == {"day": "2026-01-01", "rows": 10, "mode": "fast", "plain": 1.5, "anything": None}  # fmt: skip  # noqa: E501
    assert spec.params_schema == {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date", "title": "Day",
                    "description": "The day to load"},
            "rows": {"type": "integer", "minimum": 1, "maximum": 100},
            "mode": {"enum": ["fast", "full"], "examples": ["full"]},
            "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2},
            "plain": {"type": "number"},
            "anything": {},
        },
        "required": ["name"],
    }  # fmt: skip
    given_params = {"name": "ab", "rows": 7}
    assert validate_params(spec, given_params) == spec.params | given_params
    form = form_schema(spec.params, spec.params_schema)
    assert form["properties"]["rows"] == {
        "type": "integer", "minimum": 1, "maximum": 100, "default": 10
    }  # fmt: skip
    assert (form["required"], "default" in form["properties"]["name"]) == (["name"], False)


@pytest.mark.parametrize(
    ("given_params", "says"),
    [
        ({}, "'name' must be given"),
        ({"name": "AB"}, "does not match"),
        ({"name": "a"}, "too short"),
        ({"name": "ab", "rows": 0}, "minimum of 1"),
        ({"name": "ab", "rows": 1.0}, "not of type 'integer'"),
        ({"name": "ab", "rows": True}, "not of type 'integer'"),
        ({"name": "ab", "day": "2026-02-30"}, "not a date"),
        ({"name": "ab", "mode": "slow"}, "not one of"),
        ({"name": "ab", "plain": "x"}, "not of type 'number'"),
        ({"name": "ab", "dya": "x"}, "did you mean 'day'"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_run_exists(given_params, says):
    spec = spec_of(
        day=Param("2026-01-01", format="date"),
        rows=Param(10, type="integer", minimum=1),
        mode=Param("fast", enum=["fast", "full"]),
        name=Param(type="string", pattern="^[a-z]+$", min_length=2),
        plain=1.5,
    )
    with pytest.raises(InvalidInput, match=re.escape(says)):
        validate_params(spec, given_params)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Param("x", format="date"), "the default of a Param does not fit it: 'x' is not a"),
        (lambda: Param(None, type="string"), "leave the default out to demand a value"),
        (lambda: Param(5, maximum=3), "5 is more than 3"),
        (lambda: Param("a", enum=["b"]), "'a' is none of ['b']"),
        (lambda: Param(1, type="int"), "must be of string, integer"),
        (lambda: Param("x", format="dat"), "did you mean 'date'"),
        (lambda: Param("x", pattern="(?=x)"), "look-around"),
        (lambda: Param(1, minimun=2), "did you mean 'minimum'"),
        (lambda: Param(float("nan")), "which JSON cannot hold"),
        (lambda: Param([1], items={"type": "string"}), "1 is not of type string"),
    ],
)
def test_a_param_that_contradicts_itself_is_a_mistake(make, says):
    with pytest.raises(DefinitionError, match=re.escape(says)) as error:
        make()
    assert error.value.file == __file__


def test_airflows_spelling_of_keywords_is_taken():
    assert Param("x", minLength=1).schema == {"minLength": 1, "type": "string"}
    assert Param(None, type=["null", "string"]).schema == {"type": ["null", "string"]}


def test_a_schedule_needs_defaults():
    with pytest.raises(DefinitionError, match="param 'x' has no default, and a schedule"):
        DAG("d", schedule="@daily", params={"x": Param(type="string")})


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text("ab1", max_size=4),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
_numbers = st.integers(-4, 4)
_flat = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "boolean", "array", "null",
                                 ["string", "null"]]),
        "enum": st.lists(_values, min_size=1, max_size=3),
        "pattern": st.sampled_from(["a", "^a*$", "b1"]),
        "minimum": _numbers, "maximum": _numbers,
        "exclusiveMinimum": _numbers, "exclusiveMaximum": _numbers,
        "minLength": st.integers(0, 3), "maxLength": st.integers(0, 3),
        "minItems": st.integers(0, 3), "maxItems": st.integers(0, 3),
        "uniqueItems": st.booleans(),
    },
)  # fmt: skip


@given(_flat, _flat, _values)
def test_both_validators_say_the_same(schema, items, value):
    spec = spec_of(x=None)
    spec = msgspec.structs.replace(
        spec, params_schema={"type": "object", "properties": {"x": schema | {"items": items}}}
    )
    try:
        validate_params(spec, {"x": value})
    except InvalidInput:
        refused = True
    else:
        refused = False
    assert (find_fault(schema | {"items": items}, value) is not None) is refused
    Draft202012Validator.check_schema(schema)


class Keeps(Operator):
    template_fields = ("text",)

    def __init__(self, *, text, value, **kwargs):
        self.text = text
        self.value = value
        super().__init__(**kwargs)

    def execute(self, ctx):  # noqa: ARG002
        return [self.text, self.value]


def test_the_arguments_of_a_dag_function_are_its_params():
    @dag
    def load(day: date, rows: int = 3, zone="eu", tags: list[str] = Param(["a"], max_items=2)):  # noqa: B008
        @task
        def show(day, rows, tags):
            return [day.isoformat(), rows, tags]

        Keeps(task_id="keeps", text=f"{zone}/{rows}", value={"zone": [zone]})
        show(day, rows, tags[0])

    spec = load.to_spec("", "")
    assert spec.params == {"rows": 3, "zone": "eu", "tags": ["a"]}
    assert spec.params_schema == {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "rows": {"type": "integer"},
            "zone": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        },
        "required": ["day"],
    }
    check_templates(load)
    result = load.test(params={"day": "2026-11-20", "tags": ["b", "c"]})
    assert result.result("show") == ["2026-11-20", 3, "b"]
    assert result.result("keeps") == ["eu/3", {"zone": ["eu"]}]
    for wrong in ({}, {"day": "soon"}, {"day": "2026-11-20", "rows": "3"}):
        with pytest.raises(InvalidInput):
            load.test(params=wrong)


def test_a_call_of_the_dag_gives_other_defaults():
    @dag
    def load(day="2026-01-01", rows: int = 3):
        @task
        def show(day, rows):
            return [day, rows]

        show(day, rows)

    assert load() is load
    assert load("2026-02-02", rows=4) is load
    assert load.test().result("show") == ["2026-02-02", 4]
    with pytest.raises(DefinitionError, match="no argument 'row' left; did you mean 'rows'"):
        load(row=4)
    with pytest.raises(DefinitionError, match="the default of param 'rows' does not fit"):
        load(rows="many")


def test_an_argument_with_a_schema_keeps_it_under_another_default():
    @dag
    def load(rows=Param(3, minimum=1)):  # noqa: B008
        BashOperator(task_id="t", bash_command=f"echo {rows}")

    load(rows=5)
    assert load.to_spec("", "").params == {"rows": 5}
    with pytest.raises(DefinitionError, match="0 is less than 1"):
        load(rows=0)


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda x: x == "prod", "cannot be compared here"),
        (lambda x: "yes" if x else "no", "cannot be tested here"),
        (list, "cannot be looped over here"),
        (lambda x: f"{x:>10}", "cannot be formatted"),
    ],
)
def test_the_value_of_an_argument_is_not_known_before_the_run(use, says):
    with pytest.raises(DefinitionError, match=f"param 'x' is known only in a run.*{says}|{says}"):

        @dag
        def flow(x="a"):
            use(x)


def test_an_argument_without_a_default_needs_a_run_that_gives_it():
    with pytest.raises(DefinitionError, match="param 'x' has no default, and a schedule"):

        @dag(schedule="@daily")
        def flow(x): ...

    with pytest.raises(DefinitionError, match="stands in params= and among the arguments"):

        @dag(params={"x": 1})
        def other(x=1): ...
