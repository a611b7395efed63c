"""What an Airflow has is imported: planned purely, read from its REST API."""

import msgspec
import pytest

from pubsubflow.airflow.transfer.exports import AirflowPool, AirflowVariable
from pubsubflow.airflow.transfer.importing import PresentState, plan_import
from pubsubflow.airflow.transfer.rest import AirflowRest
from pubsubflow.airflow.transfer.source import AirflowSource
from pubsubflow.errors import ConfigError, Unavailable
from pubsubflow.model.connections import Connection
from support.canned_http import answer, serving

NOTHING = PresentState({}, {}, {}, {})


def planned(source, present=NOTHING, *, overwrite=False):
    steps = plan_import(source, present, overwrite=overwrite)
    return {(step.kind, step.name): step for step in steps}


def test_what_is_not_here_is_created():
    source = AirflowSource(
        {"dw": {"conn_type": "postgres", "host": "db", "login": "ann", "password": "p"}},
        {"limit": AirflowVariable({"a": 1}, "of rows")},
        {"db": AirflowPool(3)},
        {"here": True, "elsewhere": True, "alike": False},
    )
    present = PresentState({}, {}, {}, {"here": False, "alike": False})
    found = planned(source, present)
    assert {name: step.action for (_, name), step in found.items()} == {
        "dw": "create",
        "limit": "create",
        "db": "create",
        "here": "change",
        "alike": "same",
        "elsewhere": "skip",
    }
    connection = found["connection", "dw"].value
    assert (connection.uri, connection.secrets) == ("postgres://ann@db", {"password": "p"})
    assert found["variable", "limit"].value.description == "of rows"


@pytest.mark.parametrize(("overwrite", "action"), [(False, "keep"), (True, "change")])
def test_what_is_here_stays_unless_it_is_overwritten(overwrite, action):
    source = AirflowSource(
        {"dw": {"conn_type": "http", "host": "new"}},
        {"limit": AirflowVariable("2")},
        {"db": AirflowPool(3)},
    )
    here = Connection(name="dw", kind="http", uri="http://old")
    present = PresentState({"dw": here}, {"limit": "1"}, {"db": 2}, {})
    found = planned(source, present, overwrite=overwrite)
    assert {step.action for step in found.values()} == {action}


def test_a_second_import_changes_nothing():
    source = AirflowSource(
        {"dw": {"conn_type": "http", "host": "db"}},
        {"limit": AirflowVariable("2")},
        {"db": AirflowPool(3)},
    )
    here = Connection(name="dw", kind="http", uri="http://db")
    present = PresentState({"dw": here}, {"limit": "2"}, {"db": 3}, {})
    assert {step.action for step in planned(source, present, overwrite=True).values()} == {"same"}


def test_what_airflow_masks_is_named():
    source = AirflowSource(
        {"dw": {"conn_type": "http", "host": "db", "password": "***"}},
        {"api_key": AirflowVariable("***")},
    )
    found = planned(source)
    connection = found["connection", "dw"]
    assert connection.value.secrets == {}
    assert "pubsubflow connections set dw --secret password" in connection.remark
    assert found["variable", "api_key"].action == "skip"
    here = Connection(name="dw", kind="http", uri="http://db", secrets={"password": "***"})
    kept = planned(source, PresentState({"dw": here}, {}, {}, {}))["connection", "dw"]
    assert (kept.action, kept.remark) == ("same", "")


def test_what_has_no_counterpart_is_left_out():
    source = AirflowSource(
        {"a b": {"conn_type": "http"}, "c": {"conn_type": "http", "extra": "no JSON"}},
        {"not a name": AirflowVariable("x")},
        {"default_pool": AirflowPool(128), "endless": AirflowPool(-1)},
    )
    found = planned(source)
    assert {step.action for step in found.values()} == {"skip"}
    assert all(step.remark for step in found.values())


def page(**content):
    return answer(msgspec.json.encode(content), "200 OK", "Connection: close\r\n")


def test_a_running_airflow_is_read_page_by_page():
    pool = {"name": "db", "slots": 2, "description": None, "include_deferred": True}
    connection = {"connection_id": "dw", "conn_type": "http", "host": "db", "login": None}
    pages = [
        page(access_token="T"),
        page(connections=[connection], total_entries=1),
        page(variables=[{"key": "a", "value": "1"}], total_entries=2),
        page(variables=[{"key": "b", "value": "2", "description": "x"}], total_entries=2),
        page(pools=[pool], total_entries=1),
        page(dags=[{"dag_id": "d", "is_paused": True}], total_entries=1),
    ]
    with serving(*([each] for each in pages)) as (url, requests):
        found = AirflowRest(url, user=("ann", "secret")).read()
    assert found == AirflowSource(
        {"dw": {"conn_type": "http", "host": "db"}},
        {"a": AirflowVariable("1"), "b": AirflowVariable("2", "x")},
        {"db": AirflowPool(2, None, include_deferred=True)},
        {"d": True},
    )
    assert "offset=1" in requests[3]
    assert all("Bearer T" in request for request in requests[1:])


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (answer(b"{}", "401 Unauthorized", "Connection: close\r\n"), ConfigError, "AIRFLOW_API_T"),
        (answer(b"{}", "404 Not Found", "Connection: close\r\n"), ConfigError, "of an Airflow 3"),
        (answer(b"<html>", "200 OK", "Connection: close\r\n"), ConfigError, "with JSON"),
    ],
)
def test_a_server_of_another_kind(reply, error, message):
    with serving([reply]) as (url, _), pytest.raises(error, match=message):
        AirflowRest(url, token="T").read()


def test_no_server():
    with pytest.raises(Unavailable, match="does not answer"):
        AirflowRest("http://127.0.0.1:9", token="T").read()
    with pytest.raises(ConfigError, match="begins with http"):
        AirflowRest("file:///etc/passwd")


def test_a_password_in_the_address_is_not_shown():
    with pytest.raises(Unavailable) as raised:
        AirflowRest("http://ann:secret@127.0.0.1:9", user=("ann", "secret"))
    assert "http://127.0.0.1:9 does not answer" in str(raised.value)
    with pytest.raises(ConfigError) as refused:
        AirflowRest("ftp://ann:secret@127.0.0.1:9")
    assert "secret" not in str(refused.value)
