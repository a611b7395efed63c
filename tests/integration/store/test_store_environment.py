"""Connections of the environment: before the store, masked, never written back."""

import pytest

from pubsubflow.errors import ConfigError, InvalidInput, NotFound
from pubsubflow.model.connections import make_connection, read_connection
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import Keyring

AIRFLOW = (
    '{"conn_type": "postgres", "host": "db", "port": 5432, "login": "a@b", "password": "p:w",'
    ' "schema": "sales", "extra": {"sslmode": "on", "api_key": "k3y"}}'
)


def test_a_uri_or_json_of_ours_or_of_airflow_is_read():
    found = read_connection("x", "postgres://ann:p%20w@db/sales")
    assert (found.kind, found.password, found.uri) == ("postgres", "p w", "postgres://ann@db/sales")
    found = read_connection("x", AIRFLOW)
    assert found.url == "postgres://a%40b:p%3Aw@db:5432/sales"
    assert (found.extra, found.secrets["api_key"]) == ({"sslmode": "on"}, "k3y")
    found = read_connection("x", '{"uri": "https://crm/", "secrets": {"token": "t"}}')
    assert (found.kind, found.secrets) == ("https", {"token": "t"})
    assert read_connection("x", '{"conn_type": "aws", "extra": "{}"}').kind == "aws"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing", "not a URI"),
        ('{"a: hush}', "not valid JSON"),
        ('{"hosts": "hush"}', "hosts is unknown; known: kind"),
        ('{"extra": "hush"}', "must be JSON objects"),
    ],
)
def test_what_cannot_be_read_says_why_and_shows_nothing(text, says):
    with pytest.raises(InvalidInput, match=says) as error:
        read_connection("x", text)
    assert "hush" not in str(error.value)


@pytest.mark.anyio
async def test_the_environment_comes_first_and_is_never_stored(database, tmp_path):
    environment = {"PUBSUBFLOW_CONN_THE_DB": "postgres://ann:hush@env/sales", "OTHER": "x"}
    connections = Connections(database, Keyring(tmp_path / "keys"), environment)
    await connections.save(make_connection("the-db", uri="postgres://ann@stored/sales"))
    await connections.save(make_connection("zoo", uri="https://zoo/"))
    assert (await connections.read("the-db")).host == "env"
    assert (await connections.read("the_db")).password == "hush"
    view = await connections.view("the-db")
    assert (view.source, view.revision, view.secrets) == (
        "environment",
        "absent",
        {"password": "***"},
    )
    listed = [(each.name, each.source) for each in await connections.list("", 10)]
    assert listed == [("the-db", "environment"), ("the_db", "environment"), ("zoo", "store")]
    assert [each.name for each in await connections.list("the_db", 10)] == ["zoo"]
    environment["PUBSUBFLOW_CONN_THE_DB"] = "broken"
    with pytest.raises(ConfigError, match="environment variable PUBSUBFLOW_CONN_THE_DB"):
        await connections.read("the-db")
    del environment["PUBSUBFLOW_CONN_THE_DB"]
    assert (await connections.read("the-db")).host == "stored"
    with pytest.raises(NotFound):
        await connections.read("the_db")
