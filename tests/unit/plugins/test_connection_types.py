"""Connections are checked against the fields of their types."""

import pytest

from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.connection_types import CONNECTION_TYPES, check_type, misfits
from pubsubflow.model.connections import make_connection


def faults(type, **given):
    return misfits(make_connection("x", **given), CONNECTION_TYPES[type])


@pytest.mark.parametrize(
    ("type", "given"),
    [
        ("http", {"uri": "https://ann:pw@crm.example.com/v2", "extra": {"timeout": 5}}),
        ("postgres", {"uri": "postgresql://ann:pw@db/sales"}),
        ("sqlite", {"uri": "sqlite:////data/x.db"}),
        ("slack", {"secrets": {"token": "xoxb-1"}}),
        ("aws", {"extra": {"region": "eu-central-1", "access_key_id": "AKIA"}}),
        ("docker", {"uri": "unix:///var/run/docker.sock"}),
        ("generic", {"uri": "x://y", "extra": {"any": [1]}, "secrets": {"one": "two"}}),
    ],
)
def test_a_connection_that_fits(type, given):
    assert faults(type, **given) == []


def test_each_fault_is_named_and_no_secret_is_shown():
    given = {
        "uri": "ftp://ann:hush-hush@crm",
        "extra": {"timeout": "soon", "verify": 1, "tenant": "eu", "region": "x"},
        "secrets": {"headers": "hush-hush"},
    }
    found = faults("http", **given)
    assert len(found) == 6
    assert "timeout must be of kind number, not 'soon'" in found
    assert "verify must be of kind boolean, not 1" in found
    assert "headers is not a secret: put it under extra" in found
    assert "uri must begin with http: or https:" in found
    assert "hush" not in str(found)
    with pytest.raises(InvalidInput, match="uri is missing"):
        check_type(make_connection("x"), CONNECTION_TYPES["http"])


def test_every_check_exists():
    for each in CONNECTION_TYPES.values():
        if each.check is not None:
            module, _, name = each.check.partition(":")
            assert callable(getattr(__import__(module, fromlist=[name]), name))
