"""Calls of a task's function: the first one of a shape is checked in full, others by the shape."""

import inspect
from typing import Any, get_type_hints

import msgspec
import pytest

from pubsubflow import Context
from pubsubflow.authoring.runtime.signatures import FunctionSignature

CONTEXT: Any = object()


class Order(msgspec.Struct):
    number: int


def nothing():
    return "nothing"


def plain(one, two=2, *rest, three=3, **more):
    return one, two, rest, three, more


def with_context(ctx: Context, one=1, *, two=2):
    return ctx, one, two


def context_behind(one, ctx: Context):
    return one, ctx


def context_first_by_position(ctx: Context, /, one=1):
    return ctx, one


def with_struct(order: Order, one=1):
    return order, one


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (nothing, (), {}, "nothing"),
        (plain, (1,), {}, (1, 2, (), 3, {})),
        (plain, (1, 5, 6, 7), {"three": 0, "x": 1}, (1, 5, (6, 7), 0, {"x": 1})),
        (plain, (), {"two": 0, "one": 1}, (1, 0, (), 3, {})),
        (with_context, (), {}, (CONTEXT, 1, 2)),
        (with_context, (), {"two": 0}, (CONTEXT, 1, 0)),
        (with_context, (7,), {}, (CONTEXT, 7, 2)),
        (context_behind, (7,), {}, (7, CONTEXT)),
        (context_first_by_position, (), {"one": 3}, (CONTEXT, 3)),
        (with_struct, ({"number": 1},), {}, (Order(1), 1)),
        (with_struct, (), {"order": {"number": 2}, "one": 0}, (Order(2), 0)),
    ],
)
def test_every_call_of_a_shape_gets_the_same_arguments(function, args, kwargs, expected):
    signature = FunctionSignature(function)
    for _ in range(3):
        assert signature.call(CONTEXT, args, kwargs)() == expected


def test_values_are_those_of_each_call():
    signature = FunctionSignature(plain)
    for one in range(3):
        assert signature.call(CONTEXT, (one,), {"x": one})() == (one, 2, (), 3, {"x": one})


def test_a_call_that_does_not_fit_is_refused_before_it_is_made():
    signature = FunctionSignature(context_behind)
    for args, kwargs in [((), {}), ((1, 2), {}), ((1,), {"other": 2}), ((1,), {"one": 2})]:
        for _ in range(2):
            with pytest.raises(TypeError):
                signature.call(CONTEXT, args, kwargs)
    assert signature.call(CONTEXT, (1,), {})() == (1, CONTEXT)


def test_a_value_that_is_no_struct_is_refused_each_time():
    signature = FunctionSignature(with_struct)
    assert signature.call(CONTEXT, ({"number": 1},), {})() == (Order(1), 1)
    with pytest.raises(msgspec.ValidationError):
        signature.call(CONTEXT, ({"number": "one"},), {})


def test_these_functions_cover_all_kinds_of_parameters():
    functions = (plain, with_context, context_first_by_position)
    kinds = {each.kind for one in functions for each in inspect.signature(one).parameters.values()}
    assert kinds == set(inspect._ParameterKind)
    assert get_type_hints(with_context)["ctx"] is Context
