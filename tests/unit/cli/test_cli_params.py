"""Param values at the command line."""

from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from pubsubflow import DAG
from pubsubflow.cli.param_values import run_params
from pubsubflow.errors import ConfigError
from pubsubflow.model.runs.params import validate_params

pytestmark = pytest.mark.anyio


class Params(msgspec.Struct):
    name: str = ""
    price: Decimal = Decimal(1)
    day: date | None = None
    count: Annotated[int, Meta(ge=0)] = 0
    either: int | str = 0
    level: Literal["1", "2"] = "1"
    tags: list[str] = []


class Server:
    def __init__(self, params):
        self.spec = DAG("x", params=params).to_spec("x.py", "hash")

    async def dag(self, dag_id):
        assert dag_id == "x"
        return SimpleNamespace(params=self.spec.params, params_schema=self.spec.params_schema)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("name=1", "1"),
        ("name=true", "true"),
        ("name=null", "null"),
        ('name="1"', "1"),
        ("name=x=y", "x=y"),
        ("price=1.10", "1.10"),
        ("day=2026-11-20", "2026-11-20"),
        ("day=null", None),
        ("count=5", 5),
        ("either=5", 5),
        ("either=five", "five"),
        ("level=2", "2"),
        ('tags=["a"]', ["a"]),
    ],
)
async def test_a_value_is_read_as_the_type_that_the_dag_declares(pair, value):
    server = Server(Params)
    name = pair.partition("=")[0]
    given = await run_params(server, "x", None, [pair])
    assert given == {name: value}
    assert validate_params(server.spec, given)[name] == value


async def test_a_value_is_read_as_the_type_of_the_default():
    server = Server({"text": "a", "number": 1, "any": None, "flag": True})
    pairs = ["text=1", "number=2", "any=3", "flag=false", "unknown=4"]
    assert await run_params(server, "x", '{"number": 1}', pairs) == {
        "text": "1", "number": 2, "any": 3, "flag": False, "unknown": 4,
    }  # fmt: skip


async def test_a_pair_has_a_name_and_a_value():
    with pytest.raises(ConfigError, match="--param takes name=value"):
        await run_params(Server({}), "x", None, ["day"])
    assert await run_params(None, "x", None, []) is None
