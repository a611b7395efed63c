"""The DAGs that a connection is for: who may use it, and how the list is written."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.errors import ConfigError, InvalidInput
from pubsubflow.model.connection_dags import (
    check_dag,
    check_no_dag,
    is_for,
    normalise_dags,
)
from pubsubflow.model.connections import make_connection, read_connection
from pubsubflow.store.secrets.encryption import AssociatedData

IDS = st.text("abz_.-19", min_size=1, max_size=12)


@given(IDS, st.lists(IDS, max_size=4))
def test_a_list_of_ids_admits_these_and_an_empty_one_all(dag_id, dags):
    assert is_for(normalise_dags("x", dags), dag_id) == (not dags or dag_id in dags)
    assert is_for(normalise_dags("x", [*dags, "*"]), dag_id)


@given(IDS, IDS, IDS)
def test_a_pattern_admits_what_has_its_parts(head, middle, tail):
    assert is_for((f"{head}*",), head + middle)
    assert is_for((f"{head}*{tail}",), head + middle + tail)
    assert is_for((f"{head}*",), middle) == middle.startswith(head)


def test_who_is_refused_is_told_for_whom_the_connection_is():
    check_dag("warehouse", ("etl_*", "report"), "etl_daily")
    with pytest.raises(ConfigError, match=r"'warehouse' is for DAGs etl_\*, report; this is 'x'"):
        check_dag("warehouse", ("etl_*", "report"), "x")
    check_no_dag("warehouse", (), "a webhook")
    with pytest.raises(ConfigError, match="a webhook belongs to no DAG: take a connection without"):
        check_no_dag("warehouse", ("etl_*",), "a webhook")


def test_it_is_written_in_json_or_in_the_query_of_a_uri():
    found = read_connection("x", '{"uri": "https://crm/", "dags": ["report", "etl_*", "report"]}')
    assert found.dags == ("etl_*", "report")
    assert read_connection("x", '{"uri": "https://crm/", "dags": "report, etl_*"}') == found
    assert read_connection("x", "https://crm/?dags=report&dags=etl_%2A") == found
    found = read_connection("x", "https://crm/?a=1&dags=report&b=%20#top")
    assert (found.uri, found.dags) == ("https://crm/?a=1&b=%20#top", ("report",))
    assert read_connection("x", "https://crm/?dags=*").dags == ()
    assert read_connection("x", '{"conn_type": "http", "host": "h", "dags": ["a"]}').dags == ("a",)


@pytest.mark.parametrize(
    "text",
    [
        "https://crm/?dags=",
        "https://crm/?dags=a,,b",
        "https://crm/?dags=a/b",
        '{"uri": "https://crm/", "dags": ""}',
        '{"uri": "https://crm/", "dags": [1]}',
        '{"uri": "https://crm/", "dags": {"a": 1}}',
        '{"uri": "https://crm/", "dags": [" "]}',
    ],
)
def test_what_names_no_dag_is_refused_rather_than_read_as_all(text):
    with pytest.raises(InvalidInput, match="dags"):
        read_connection("x", text)


def test_it_is_shown_and_what_is_sealed_without_it_is_as_it_was():
    assert "dags=('a',)" in repr(make_connection("x", dags=["a"]))
    assert "dags" not in repr(make_connection("x"))
    fields = ("crm", "http", "https://crm/", "{}")
    sealed = b"pubsubflow connection 1" + msgspec.msgpack.encode(fields)
    assert AssociatedData(*fields).encoded() == sealed
    assert AssociatedData(*fields, ("a",)).encoded() != sealed
