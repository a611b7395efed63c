"""The SQL operator on what SQLAlchemy reaches, which is SQLite here."""

import pytest

from pubsubflow import DAG, SqlOperator
from pubsubflow.hooks.sql import check
from pubsubflow.model.connections import make_connection

pytestmark = pytest.mark.anyio


@pytest.fixture
def database(tmp_path):
    return make_connection("sql_default", uri=f"sqlite+pysqlite:///{tmp_path / 'x.db'}")


async def run(database, params=None, **options):
    with DAG("tried", params=params) as dag:
        SqlOperator(task_id="x", **options)
    return await dag.atest(connections={"sql_default": database})


async def test_statements_are_bound_and_one_transaction(database):
    evil = "x'); DROP TABLE orders; --"
    result = await run(
        database,
        params={"who": evil},
        sql=[
            "CREATE TABLE orders (who TEXT, amount REAL)",
            "INSERT INTO orders VALUES ('{{ params.who }}', :amount)",
            "INSERT INTO orders VALUES ('ann', :amount)",
            "SELECT * FROM orders ORDER BY who",
        ],
        parameters={"amount": 2.5},
        limit=1,
    )
    assert result.result("x") == [{"who": "ann", "amount": 2.5}]
    failed = await run(database, sql=["DELETE FROM orders", "SELECT * FROM nowhere"])
    assert "nowhere" in failed.tasks["x"][0].error.message
    counted = await run(database, sql="SELECT count(*) AS n FROM orders WHERE amount = 2.5")
    assert counted.result("x") == [{"n": 2}]
    refused = await run(database, sql="SELECT ?", parameters=[1])
    assert "named parameters" in refused.tasks["x"][0].error.message


async def test_a_text_with_a_colon_is_not_a_parameter(database):
    result = await run(database, sql="SELECT 'a:b' AS t, '12:30' AS u")
    assert result.result("x") == [{"t": "a:b", "u": "12:30"}]


async def test_a_slow_statement_is_interrupted(database):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    result = await run(database, sql=endless, statement_timeout=0.2)
    assert result.tasks["x"][0].error.type == "TimeoutError"


async def test_it_is_checked(database):
    assert (await check(database)).startswith("SELECT 1 on")
