"""Limits as users write them: what is accepted, what a key becomes, and what mistakes say."""

from datetime import timedelta

import pytest

from pubsubflow import DAG, DefinitionError, RateLimit, dag, task
from pubsubflow.authoring.tasks.limits import parse_key
from pubsubflow.model.limits.keys import MAX_KEY_CHARACTERS, KeyPart, render_key
from pubsubflow.model.runs.plan import Plan

FACTS = {
    "params": {"tenant": "Acme", "none": None, "deep": {"a": [1, 2]}, "n": 3},
    "run": {"partition": None, "dag_id": "d"},
    "task": {"map_index": 7},
    "ds": "2026-01-02",
}


@pytest.mark.parametrize(
    ("written", "rendered"),
    [
        ("{{ params.tenant }}", "Acme"),
        ("tenant-{{ params['tenant'] | lower }}/{{ds}}", "tenant-acme/2026-01-02"),
        ("{{ params.deep.a[1] }}{{ params.deep.a.0 }}", "21"),
        ("{{ ctx.run.params.n }}-{{ task.map_index }}", "3-7"),
        ("{{ params.none }}|{{ run.partition | default('all') | upper }}", "|ALL"),
        ("{{ params.deep }}", '{"a": [1, 2]}'),
    ],
)
def test_a_key_is_rendered_from_the_facts_of_its_run(written, rendered):
    assert render_key(parse_key(written), FACTS) == rendered


def test_a_long_or_odd_key_stays_short_and_can_be_stored():
    key = render_key((KeyPart(path=("params", "x")),), {"params": {"x": "a\x00\ud800" * 500}})
    assert len(key) == MAX_KEY_CHARACTERS
    assert "\x00" not in key
    assert key.encode()


@pytest.mark.parametrize(
    ("written", "error"),
    [
        ("{{ params.tenant | replace('a', 'b') }}", "runs no code"),
        ("{% for x in params %}{% endfor %}", "runs no code"),
        ("{{ params.tenant() }}", "runs no code"),
        ("{{ parms.tenant }}", "did you mean 'params'"),
        ("{{ run.bundle }}", "did you mean|known:"),
        ("{{ params.tenent }}", "did you mean 'tenant'"),
        ("{{ }}", "runs no code"),
        ("x" * 300, "at most 200 characters"),
    ],
)
def test_a_key_that_a_manager_cannot_render_is_refused_when_the_file_is_loaded(written, error):
    with pytest.raises(DefinitionError, match=error):
        _spec_of(concurrency_key=written)


def _spec_of(**options):
    with DAG("d", params={"tenant": "a"}) as made:
        task(task_id="t", **options)(lambda: None)()
    return made.to_spec("", "")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"pool_slots": 0, "pool": "p"}, "pool_slots=0 must be at least 1"),
        ({"concurrency_limit": 0, "concurrency_key": "k"}, "must be at least 1"),
        ({"rate_limit": "crm"}, "must be a RateLimit"),
        ({"priority": 10**12}, "at most 1,000,000"),
    ],
)
def test_a_bad_limit_is_an_error_of_its_line(options, error):
    with pytest.raises(DefinitionError, match=error):
        task(task_id="t", **options)(lambda: None)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"pool_slots": 2}, "needs a pool="),
        ({"pool": "tag:heavy"}, "limit tags of DAGs"),
        ({"concurrency_limit": 2}, "needs a concurrency_key="),
    ],
)
def test_limits_that_need_another_say_so(options, error):
    with pytest.raises(DefinitionError, match=error):
        _spec_of(**options)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("", 1), "name=''"),
        (("x", 0), "starts=0 must be at least 1"),
        (("x", 1, timedelta(0)), "more than zero"),
        (("x", 1, timedelta(days=1000)), "at most a year"),
        (("x", 1, 1, 0), "burst=0"),
    ],
)
def test_a_bad_rate_is_an_error(given, error):
    with pytest.raises(DefinitionError, match=error):
        RateLimit(*given)


def test_a_spec_holds_the_limits_of_a_task():
    crm = RateLimit("crm", 100, per=timedelta(minutes=1))

    @dag(params={"tenant": "a"}, priority=5, default_args={"rate_limit": crm})
    def limited():
        @task(pool="p", pool_slots=2, concurrency_key="{{ params.tenant }}", concurrency_limit=3)
        def t(): ...

        t()

    spec = limited.to_spec("", "")
    assert spec.priority == 5
    (found,) = spec.tasks
    assert found.key_parts == (KeyPart(path=("params", "tenant")),)
    assert (found.rate_limit.starts, found.rate_limit.burst) == (100, 100)
    limits = {limit.name: limit.capacity for limit in Plan(spec).limits[0]}
    assert limits == {"key:{{ params.tenant }}": 3, "pool:p": -2, "rate:crm": 0}
    assert limited.test().state == "success"
