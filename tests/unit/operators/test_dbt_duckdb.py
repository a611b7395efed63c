"""The dbt operator with dbt itself, on DuckDB; `make dbt` installs them and runs this."""

import os

import pytest

from pubsubflow import DAG, Dataset
from pubsubflow.operators import DbtOperator

DBT = os.environ.get("DBT")
pytestmark = pytest.mark.skipif(not DBT, reason="dbt is heavy: `make dbt` has it")

PROJECT = """
name: jaffle
version: "1.0"
profile: jaffle
models: {jaffle: {+materialized: table}}
"""
PROFILE = """
jaffle:
  target: dev
  outputs:
    dev: {type: duckdb, path: warehouse.duckdb, schema: main}
"""
SCHEMA = """
models:
  - name: orders
    columns: [{name: amount, data_tests: [not_null]}]
"""
FILES = {
    "dbt_project.yml": PROJECT,
    "profiles.yml": PROFILE,
    "models/schema.yml": SCHEMA,
    "models/good_orders.sql": "select id from {{ ref('orders') }} where amount > 0",
}


def test_models_are_events_and_a_failed_test_fails_the_task(tmp_path):
    (tmp_path / "models").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    orders = tmp_path / "models" / "orders.sql"
    orders.write_text("select 1 as id, null as amount")
    with DAG("jaffle") as dag:
        DbtOperator(
            task_id="dbt", project_dir=str(tmp_path), executable=DBT, datasets="duckdb://here/db"
        )
    result = dag.test()
    assert "not_null_orders_amount" in result.tasks["dbt"][0].error.message
    assert [event.dataset for event in result.emitted] == [Dataset("duckdb://here/db/main/orders")]
    orders.write_text("select 1 as id, 10 as amount")
    result = dag.test()
    assert [event.dataset.uri for event in result.emitted] == [
        "duckdb://here/db/main/orders",
        "duckdb://here/db/main/good_orders",
    ]
    assert set(result.result("dbt").values()) == {"success", "pass"}
