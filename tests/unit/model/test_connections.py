"""Connections as values: URLs, references, and what never shows."""

import msgspec
import pytest

from pubsubflow.errors import InvalidInput
from pubsubflow.model.connections import (
    Connection,
    ConnectionReference,
    make_connection,
    read_reference,
)

WAREHOUSE = "postgres://ann@db.example.com:5433/sales?sslmode=verify-full"


def test_a_password_in_the_uri_becomes_a_secret():
    made = make_connection("warehouse", uri="postgres://ann:p%40ss%3A%2F@db:5433/sales")
    assert (made.uri, made.kind) == ("postgres://ann@db:5433/sales", "postgres")
    assert made.secrets == {"password": "p@ss:/"}
    assert made.url == "postgres://ann:p%40ss%3A%2F@db:5433/sales"
    assert (made.host, made.port, made.user, made.path) == ("db", 5433, "ann", "sales")


def test_the_password_stands_where_it_belongs_in_the_url():
    made = make_connection("warehouse", uri=WAREHOUSE, secrets={"password": "a/b"})
    assert made.url == WAREHOUSE.replace("ann@", "ann:a%2Fb@")
    redis = make_connection("cache", uri="redis://cache:6379/0", secrets={"password": "pw"})
    assert redis.url == "redis://:pw@cache:6379/0"
    assert make_connection("open", uri="redis://cache:6379/0").url == "redis://cache:6379/0"
    assert make_connection("v6", uri="nats://a:b@[::1]:4222").url == "nats://a:b@[::1]:4222"


def test_nothing_that_prints_a_connection_shows_its_secrets():
    made = make_connection("hook", secrets={"token": "hush-hush"}, extra={"a": 1})
    for text in (repr(made), str(made), f"{made}", repr([made]), repr(made.__rich_repr__())):
        assert "hush" not in text
        assert "***" in text
    assert made.redacted_values() == {"hush-hush"}
    assert "p%2Fw" in make_connection("x", secrets={"a": "p/w"}).redacted_values()


@pytest.mark.parametrize(
    ("name", "more", "complaint"),
    [
        ("a.b", {}, "cannot name a connection"),
        ("", {}, "cannot name a connection"),
        ("a\n", {}, "cannot name a connection"),
        ("a", {"uri": "db.example.com"}, "not a URI"),
        ("a", {"uri": "postgres://u:hunter2:x@h:port/d"}, "not a URI"),
        ("a", {"uri": "postgres://h/d?password=hunter2"}, "'password' in the uri is a secret"),
        ("a", {"uri": "https://h/?api_key=hunter2"}, "'api_key' in the uri is a secret"),
        ("a", {"extra": {"client_secret": "hunter2"}}, "put it under secrets"),
        ("a", {"secrets": {"": "hunter2"}}, "cannot name a secret"),
        ("a", {"secrets": {"url": "hunter2"}}, "cannot name a secret"),
        ("a", {"secrets": {"token": ""}}, "is empty"),
        ("a", {"kind": "My DB"}, "take small letters"),
        ("a", {"secrets": {"token": "hunter2" * 10_000}}, "64 KiB"),
    ],
)
def test_what_cannot_be_is_refused_without_telling_it(name, more, complaint):
    with pytest.raises(InvalidInput, match=complaint) as caught:
        make_connection(name, **more)
    assert "hunter2" not in str(caught.value)


def test_references_name_a_connection_and_perhaps_a_field():
    assert read_reference("env:X") is None
    assert read_reference("connection:crm") == ConnectionReference("crm")
    assert read_reference("connection:crm.token") == ConnectionReference("crm", "token")
    for bad in ("connection:", "connection:a.", "connection:a.b.c", "connection:a b"):
        with pytest.raises(InvalidInput, match="write connection:NAME"):
            read_reference(bad)


def test_a_reference_without_a_field_is_the_url_or_the_only_secret():
    made = make_connection("db", uri=WAREHOUSE, secrets={"password": "pw"}, extra={"limit": 5})
    assert ConnectionReference("db").secret(made) == "pw"
    assert ConnectionReference("db").url(made) == WAREHOUSE.replace("ann@", "ann:pw@")
    fields = {"password": "pw", "host": "db.example.com", "port": "5433", "limit": "5"}
    assert {name: made.field(name) for name in fields} == fields
    two = msgspec.structs.replace(made, secrets={"a": "1", "b": "2"})
    with pytest.raises(InvalidInput, match=r"write connection:db\.a or connection:db\.b"):
        ConnectionReference("db").secret(two)
    with pytest.raises(InvalidInput, match="has no 'tokn'; there are password, limit, url"):
        made.field("tokn")
    with pytest.raises(InvalidInput, match="has no uri"):
        ConnectionReference("x").url(Connection(name="x"))
