import pytest
from pubsubflow_triggers.checks import check_url
from pubsubflow_triggers.credentials import resolve, resolve_all, resolve_url

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import TrialContext

pytestmark = pytest.mark.anyio

CONNECTIONS = {
    "db": "postgres://ann:p%40ss@db/sales",
    "s3": {"secrets": {"key": "quiet", "secret": "quieter"}},
}


@pytest.fixture
def ctx():
    return TrialContext(connections=CONNECTIONS)


async def test_plain_value_is_itself_and_env_names_a_variable(ctx, monkeypatch):
    monkeypatch.setenv("SOME_SECRET", "quiet")
    assert await resolve(ctx, "loud") == "loud"
    assert await resolve(ctx, "env:SOME_SECRET") == "quiet"


async def test_missing_variable_says_its_name(ctx, monkeypatch):
    monkeypatch.delenv("SOME_SECRET", raising=False)
    with pytest.raises(TriggerError, match="'SOME_SECRET' is not set"):
        await resolve(ctx, "env:SOME_SECRET")


async def test_a_connection_is_its_url_or_its_secret(ctx):
    assert await resolve_url(ctx, "connection:db") == CONNECTIONS["db"]
    assert await resolve(ctx, "connection:db") == "p@ss"
    assert await resolve(ctx, "connection:db.host") == "db"
    options = {"key": "connection:s3.key", "deep": {"secret": "connection:s3.secret", "n": 5}}
    found = await resolve_all(ctx, options)
    assert found == {"key": "quiet", "deep": {"secret": "quieter", "n": 5}}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("connection:nobody", "no connection named 'nobody'"),
        ("connection:s3", "has several secrets: write connection:s3.key or"),
        ("connection:db.nope", "has no 'nope'"),
        ("connection:", "write connection:NAME"),
    ],
)
async def test_what_a_connection_does_not_have_fails_the_trigger(ctx, value, complaint):
    with pytest.raises(TriggerError, match=complaint):
        await resolve(ctx, value)


async def test_a_malformed_reference_is_refused_where_it_is_written():
    check_url("X", "connection:db.url", ("http",))
    with pytest.raises(DefinitionError, match="write connection:NAME"):
        check_url("X", "connection:a/b", ("http",))
