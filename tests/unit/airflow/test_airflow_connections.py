"""Connections in Airflow's words come back to its tasks as they were written."""

import json

import pytest

from pubsubflow.airflow.outside.answers import connection_fields
from pubsubflow.model.connections import read_connection

WRITTEN = (
    {"conn_type": "aws", "login": "AKIA", "password": "hush", "extra": {"region_name": "eu"}},
    {"conn_type": "snowflake", "login": "ann", "schema": "shop", "extra": {"account": "a"}},
    {"conn_type": "jira", "host": "https://shop.atlassian.net", "login": "a@b.c"},
    {"conn_type": "spark", "host": "local[2]"},
    {"conn_type": "spark", "host": "spark://Master", "port": 7077},
    {"conn_type": "databricks", "host": "adb-1.azuredatabricks.net", "password": "dapi"},
    {"conn_type": "postgres", "host": "db", "port": 5432, "login": "ann", "schema": "shop"},
    {"conn_type": "slack", "password": "xoxb"},
)


@pytest.mark.parametrize("given", WRITTEN, ids=lambda given: given["conn_type"])
def test_fields_come_back(given):
    found = connection_fields(read_connection("one", json.dumps(given)))
    found["extra"] = json.loads(found["extra"] or "null")
    assert {name: value for name, value in found.items() if value is not None} == {
        "conn_id": "one",
        **given,
    }


def test_parameters_of_a_uri_are_fields_of_extra():
    found = connection_fields(read_connection("one", "jira://https%3A%2F%2Fx.org/?verify=no"))
    assert (found["host"], json.loads(found["extra"])) == ("https://x.org", {"verify": "no"})
