import pubsubflow_triggers as triggers
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


@pytest.mark.parametrize(
    "trigger",
    [
        triggers.Command(argv=("true",), env={"X": "env:NOT_SET"}),
        triggers.DagRun(dag_id="d", server="http://127.0.0.1:1", token="env:NOT_SET"),
        triggers.DaskFuture(scheduler="env:NOT_SET", key="k"),
        triggers.HttpJson(url="env:NOT_SET", condition="true"),
        triggers.HttpStatus(url="http://127.0.0.1:1", bearer="env:NOT_SET"),
        triggers.HttpStatus(url="http://127.0.0.1:1", headers={"X": "env:NOT_SET"}),
        triggers.JetStreamMessage(url="env:NOT_SET", stream="S"),
        triggers.KvKey(url="env:NOT_SET", bucket="b", key="k"),
        triggers.MailArrives(host="127.0.0.1", port=1, user="u", password="env:NOT_SET"),
        triggers.NatsMessage(url="env:NOT_SET", subject="s"),
        triggers.ObjectAppears(url="memory://x/y", storage_options={"key": "env:NOT_SET"}),
        triggers.PostgresNotify(url="env:NOT_SET", channel="c"),
        triggers.QueryIsTrue(url="env:NOT_SET", query="SELECT true"),
        triggers.RedisKey(url="env:NOT_SET", key="k"),
        triggers.RedisList(url="env:NOT_SET", key="k"),
        triggers.RedisStream(url="env:NOT_SET", key="k"),
        triggers.RunEnds(run_id="r", server="http://127.0.0.1:1", token="env:NOT_SET"),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
async def test_a_trigger_names_the_variable_that_is_not_set(ctx, trigger, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(TriggerError, match="'NOT_SET' is not set"):
        await anext(trigger.run(ctx))


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
