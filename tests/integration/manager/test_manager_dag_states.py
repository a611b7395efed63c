"""Which runs exist: conditions, pauses, limits, keys, requests that cannot be."""

from collections import Counter
from datetime import UTC, datetime
from functools import partial

import anyio
import pytest

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.chosen_keys import MAX_KEY_CHARACTERS
from pubsubflow.model.wire.commands import RecordEvents, SetPaused, StartRun
from pubsubflow.model.wire.messages import NewEvent
from support.harness import post
from support.specs import dag, task, uri

pytestmark = pytest.mark.anyio


async def side_by_side(*calls):
    """Carry out calls at once; return answers and errors in order."""
    answers = [None] * len(calls)

    async def one(place, call):
        try:
            answers[place] = await call()
        except Exception as error:  # noqa: BLE001 - an answer like others
            answers[place] = error

    async with anyio.create_task_group() as group:
        for place, call in enumerate(calls):
            group.start_soon(one, place, call)
    return answers


async def consumed(harness, dag_id="d"):
    """Return what each run of a DAG consumed, by the events' names."""
    rows = await harness.rows(
        "SELECT run.run_id, event.extra->>'name' FROM run JOIN dag ON dag.id = run.dag"
        " LEFT JOIN (SELECT DISTINCT run, event FROM run_event) AS re ON re.run = run.id"
        " LEFT JOIN event ON event.id = re.event WHERE dag_id = $1"
        " ORDER BY run.run_id, event.id",
        dag_id,
    )
    found = {}
    for run, name in rows:
        found.setdefault(run, []).append(name)
    return [" ".join(filter(None, names)) for names in found.values()]


@pytest.mark.parametrize(
    ("on", "events", "runs"),
    [
        ("(a | b) & (c | d)", "a1 b2 c3", ["a1 b2 c3"]),
        ("(a & b) | (a & c)", "a1 b2 c3", ["a1 b2", "a1 c3"]),
        ("a & b", "a1 a2 b3 b4 a5", ["a1 a2 b3", "b4 a5"]),
        ("(a & b) | c", "a1 c2 b3", ["c2", "a1 b3"]),
    ],
)
@pytest.mark.parametrize("how", ["one by one", "in one call", "to two managers"])
async def test_conditions_consume_as_the_contract_says(pair, on, events, runs, how):
    harness = pair
    await harness.load(dag("d", task("t"), on=on))
    names = events.split()
    if how == "in one call":
        given = tuple(NewEvent(uri(name[0]), {"name": name}) for name in names)
        await harness.call(RecordEvents(given, (None,) * len(given)))
    for number, name in enumerate(names if how != "in one call" else []):
        await harness.post(name, manager=number % 2 if how == "to two managers" else 0)
    assert await consumed(harness) == runs
    assert [(await harness.order()).events for _ in runs] == [run.split() for run in runs]


async def test_two_managers_lose_no_half_of_an_and(pair):
    harness = pair
    await harness.load(*(dag(f"d{n}", task("t"), on=f"a{n} & b{n}") for n in range(40)))
    calls = [
        partial(harness.call, post(f"{side}{n}"), manager=manager)
        for n in range(40)
        for manager, side in enumerate("ab")
    ]
    assert not [each for each in await side_by_side(*calls) if isinstance(each, Exception)]
    assert await harness.value("SELECT count(*) FROM run") == 40
    assert await harness.value("SELECT count(*) FROM pending_event") == 0


async def test_every_event_is_consumed_once_when_two_managers_race_for_one_dag(pair):
    harness = pair
    harness.automatic = lambda order: [order.result()]
    await harness.load(dag("d", task("t"), on="a & b", max_active_runs=2))
    calls = [
        partial(harness.post, f"{side}{n}", manager=n % 2) for n in range(60) for side in ("a", "b")
    ]
    await side_by_side(*calls)
    await harness.quiet()
    taken = Counter(
        await harness.rows(
            "SELECT event, input FROM run_event UNION ALL SELECT event, input FROM pending_event"
        )
    )
    assert len(taken) == 120
    assert set(taken.values()) == {1}
    assert set(await harness.states()) == {"success"}
    assert await harness.rows("SELECT active, queued FROM dag_state") == [(0, 0)]


async def test_the_same_key_gives_the_first_event(harness):
    await harness.load(dag("d", task("t"), on="a"))
    (first,) = await harness.call(post("a", keys=("k",)))
    assert not first.duplicate
    for _ in range(2):
        (again,) = await harness.call(post("a", keys=("k",)))
        assert (again.event_id, again.duplicate) == (first.event_id, True)
    assert await harness.value("SELECT count(*) FROM event") == 1
    assert await harness.value("SELECT count(*) FROM run") == 1


async def test_the_same_key_twice_in_one_call_and_in_one_batch(harness):
    await harness.load(dag("d", task("t"), on="a"))
    first, second, other, free = await harness.call(
        post("a", "a", "a", "a", keys=("k", "k", "l", None))
    )
    assert [first.duplicate, second.duplicate, other.duplicate, free.duplicate] == [
        False, True, False, False
    ]  # fmt: skip
    assert first.event_id == second.event_id
    answers = await side_by_side(*[partial(harness.call, post("a", keys=("m",)))] * 20)
    assert sum(not recorded.duplicate for (recorded,) in answers) == 1
    assert len({recorded.event_id for (recorded,) in answers}) == 1
    assert await harness.value("SELECT count(*) FROM event") == 4
    assert await harness.value("SELECT count(*) FROM run") == 4


async def test_the_same_keys_at_two_managers_at_once(pair):
    harness = pair
    await harness.load(dag("d", task("t"), on="a"))
    calls = [
        partial(harness.call, post("a", "a", keys=(f"k{n}", f"k{(n + 1) % 20}")), manager=manager)
        for n in range(20)
        for manager in (0, 1)
    ]
    answers = [recorded for each in await side_by_side(*calls) for recorded in each]
    assert sum(not recorded.duplicate for recorded in answers) == 20
    assert await harness.value("SELECT count(*) FROM event") == 20
    assert await harness.value("SELECT count(*) FROM run") == 20


async def test_a_run_key_gives_one_run(pair):
    harness = pair
    await harness.load(dag("d", task("t")), dag("e", task("t")))
    calls = [
        partial(harness.call, StartRun(dag_id, run_key="k"), manager=manager)
        for dag_id in ("d", "e")
        for manager in (0, 1)
        for _ in range(5)
    ]
    answers = await side_by_side(*calls)
    assert [len(set(answers[:10])), len(set(answers[10:]))] == [1, 1]
    assert await harness.call(StartRun("d", run_key="k")) == answers[0]
    assert await harness.value("SELECT count(*) FROM run") == 2


async def test_starting_without_a_key_starts_every_time(harness):
    await harness.load(dag("d", task("t")))
    runs = {await harness.call(StartRun("d")) for _ in range(3)}
    assert len(runs) == 3
    assert len(await harness.states()) == 3


async def test_params_go_over_the_defaults_and_are_checked_first(harness):
    await harness.load(dag("d", task("t"), params={"day": "today", "n": 1}))
    moment = datetime(2026, 11, 20, tzinfo=UTC)
    asked = {"logical_time": moment, "cause": "because \x00", "partition": "p\x00"}
    await harness.call(StartRun("d", {"n": 2}, **asked))
    info = (await harness.order()).info
    assert info.partition == "p\\u0000"
    assert info.params == {"day": "today", "n": 2}
    assert (info.kind, info.logical_time, info.cause) == ("manual", moment, "because \\u0000")
    for params in ({"m": 1}, {"n": "two"}, {"day": "x" * 300_000}):
        with pytest.raises(InvalidInput):
            await harness.call(StartRun("d", params))
    assert len(await harness.states()) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("optional.of(1)", "optional.of"),
        ("event.extra.missing", "failed"),
        ("size(event.extra.pad)", "must be a string"),
        ("event.extra.pad + event.extra.pad", "are larger than"),
    ],
)
async def test_params_from_events_that_cannot_be_harm_no_other_dag(harness, text, reason):
    await harness.load(
        dag("bad", task("t"), on="a", params={"p": ""}, params_from={"p": text}),
        dag("d", task("t"), on="a"),
    )
    await harness.post("a1", extra={"pad": "x" * 150_000})
    assert (await harness.order()).info.dag_id == "d"
    assert await harness.states("bad") == []
    (letter,) = await harness.rows("SELECT kind, subject, reason FROM dead_letter")
    assert letter[:2] == ("params", "bad")
    assert reason in letter[2]
    assert await harness.rows("SELECT input, outcome, reason FROM event_outcome") == [
        (0, "dead", letter[2])
    ]  # fmt: skip
    assert await harness.rows("SELECT active, queued FROM dag_state ORDER BY dag") == [
        (0, 0),
        (1, 0),
    ]


async def test_a_bad_request_is_refused_alone(harness):
    await harness.load(dag("d", task("t"), on="a"))
    answers = await side_by_side(
        partial(harness.call, StartRun("nobody")),
        partial(harness.call, SetPaused("nobody", paused=True)),
        partial(harness.call, post("a", "a", keys=("bad", "b" * (MAX_KEY_CHARACTERS + 1)))),
        partial(harness.call, post("a", keys=("nul\x00",))),
        partial(harness.call, post("a", extra={"pad": "x" * 300_000})),
        partial(harness.call, StartRun("d", run_key="k" * (MAX_KEY_CHARACTERS + 1))),
        partial(harness.call, post("a", partition="p\x00", extra={"nul": "\x00"})),
    )
    assert [type(answer) for answer in answers] == [
        NotFound, NotFound, InvalidInput, InvalidInput, InvalidInput, InvalidInput,
        list,
    ]  # fmt: skip
    assert await harness.rows("SELECT partition, extra FROM event") == [
        ("p\\u0000", {"nul": "\\u0000"})
    ]
    (free,) = await harness.call(post("a", keys=("bad",)))
    assert not free.duplicate, "a refused call claims no key"


async def pause(harness, dag_id="d"):
    await harness.call(SetPaused(dag_id, paused=True))


async def unpause(harness, dag_id="d"):
    await harness.call(SetPaused(dag_id, paused=False))


async def test_a_paused_dag_holds_its_events_and_fires_for_each_when_it_goes_on(harness):
    await harness.load(dag("d", task("t"), on="a"))
    await pause(harness)
    await pause(harness)
    await harness.post("a1", "a2", "a3")
    assert await harness.states() == []
    assert await harness.rows(
        "SELECT catch_up_from = (SELECT min(id) FROM event) FROM dag_state"
    ) == [(True,)]
    await unpause(harness)
    assert await harness.rows("SELECT catch_up_from FROM dag_state") == [(None,)]
    assert await consumed(harness) == ["a1", "a2", "a3"]
    assert [(await harness.order()).events for _ in range(3)] == [["a1"], ["a2"], ["a3"]]
    await unpause(harness)
    assert len(await harness.states()) == 3
    assert await harness.value("SELECT count(*) FROM pending_event") == 0


async def test_a_paused_dag_may_drop_its_events(harness):
    await harness.load(dag("d", task("t"), on="a & b", on_pause="drop"))
    await harness.post("a1")
    await pause(harness)
    await harness.post("a2", "b3")
    assert await harness.rows("SELECT catch_up_from FROM dag_state") == [(None,)]
    await unpause(harness)
    assert await consumed(harness) == []
    await harness.post("b4")
    assert await consumed(harness) == ["a1 b4"]
    outcomes = (
        "SELECT extra->>'name', outcome, reason"
        " FROM event_outcome JOIN event ON id = event ORDER BY id"
    )
    assert await harness.rows(outcomes) == [
        ("a2", "skipped", "the DAG was paused"), ("b3", "skipped", "the DAG was paused")
    ]  # fmt: skip


@pytest.mark.parametrize("paused_at", range(6))
@pytest.mark.parametrize(
    ("on", "events", "runs"),
    [
        ("(a & b) | (a & c)", "a1 b2 b3 a4 c5 b6", ["a1 b2", "b3 a4", "a1 a4 c5"]),
        ("a & b", "a1 a2 b3 b4 a5 b6", ["a1 a2 b3", "b4 a5"]),
        ("(a | b) & c", "a1 c2 b3 a4 c5 c6", ["a1 c2", "b3 a4 c5"]),
    ],
)
async def test_a_pause_changes_nothing_about_which_runs_there_are(
    harness, on, events, runs, paused_at
):
    await harness.load(dag("d", task("t"), on=on))
    for number, name in enumerate(events.split()):
        if number == paused_at:
            await pause(harness)
        if number == paused_at + 3:
            await unpause(harness)
        await harness.post(name)
    await unpause(harness)
    assert await consumed(harness) == runs


async def test_what_is_held_survives_a_new_condition(harness):
    await harness.load(dag("d", task("t"), on="a & b"))
    await pause(harness)
    await harness.post("a1", "b2", "a3")
    await harness.load(dag("d", task("t"), on="b | a"))
    await unpause(harness)
    assert await consumed(harness) == ["a1", "b2", "a3"]


async def test_a_paused_dag_starts_runs_on_request(harness):
    await harness.load(dag("d", task("t")))
    await pause(harness)
    await harness.call(StartRun("d"))
    await harness.finish("t")
    await harness.until_states("success")


async def test_more_held_events_than_run_numbers_at_hand(harness):
    await harness.load(dag("d", task("t"), on="a", max_active_runs=2000))
    await pause(harness)
    given = tuple(NewEvent(uri("a"), {"name": f"a{n}"}) for n in range(1500))
    await harness.call(RecordEvents(given, (None,) * len(given)))
    answers = await side_by_side(
        partial(unpause, harness), *[partial(harness.call, StartRun("d")) for _ in range(20)]
    )
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert await harness.value("SELECT count(DISTINCT id) FROM run") == 1520


async def test_runs_over_the_limit_wait_in_line(harness):
    await harness.load(dag("d", task("t"), on="a", max_active_runs=2))
    await harness.post("a1", "a2", "a3", "a4", "a5")
    assert await harness.states() == ["running"] * 2 + ["queued"] * 3
    first, second = await harness.order(), await harness.order()
    assert first.events + second.events == ["a1", "a2"]
    await harness.report(second.result())
    third = await harness.order()
    assert third.events == ["a3"]
    await harness.report(third.result("failed"))
    assert (await harness.finish("t")).events == ["a4"]
    assert (await harness.finish("t")).events == ["a5"]
    await harness.report(first.result())
    await harness.until_states("success", "success", "failed", "success", "success")
    assert await harness.rows("SELECT active, queued FROM dag_state") == [(0, 0)]


async def test_a_line_keeps_its_order_within_one_batch(harness):
    await harness.load(dag("d", task("t"), on="a", max_active_runs=1))
    given = tuple(NewEvent(uri("a"), {"name": f"a{n}"}) for n in range(30))
    await harness.call(RecordEvents(given[:15], (None,) * 15))
    await harness.call(RecordEvents(given[15:], (None,) * 15))
    order = []
    for _ in range(30):
        order += (await harness.finish("t")).events
    assert order == [f"a{n}" for n in range(30)]


async def test_a_line_of_runs_without_work_empties_itself(harness):
    await harness.load(
        dag("d", task("t", kind="empty", emits=["b"]), on="a", max_active_runs=1),
        dag("e", task("u"), on="b"),
    )
    given = tuple(NewEvent(uri("a")) for _ in range(50))
    await harness.call(RecordEvents(given, (None,) * 50))
    assert await harness.states("d") == ["success"] * 50
    assert len(await harness.states("e")) == 50
    assert await harness.rows("SELECT active, queued FROM dag_state ORDER BY dag") == [
        (0, 0),
        (16, 34),
    ]


async def test_a_new_version_is_for_new_runs(harness):
    await harness.load(dag("d", task("t"), task("u", "t"), on="a", max_active_runs=1))
    await harness.post("a1", "a2")
    await harness.load(dag("d", task("t"), on="a", max_active_runs=5))
    await harness.post("a3")
    await harness.finish("t")
    await harness.finish("u")
    found = [await harness.finish("t"), await harness.finish("t")]
    assert sorted(order.events[0] for order in found) == ["a2", "a3"]
    await harness.finish("u")
    await harness.until_states("success", "success", "success")
    numbers = "SELECT number FROM run JOIN dag_version AS v ON v.id = version ORDER BY run.run_id"
    assert await harness.rows(numbers) == [(1,), (1,), (2,)]


async def test_one_event_serves_every_subscriber(harness):
    await harness.load(*(dag(f"d{n}", task("t"), on="a") for n in range(50)))
    await harness.post("a1")
    assert {(await harness.order()).info.dag_id for _ in range(50)} == {f"d{n}" for n in range(50)}
    assert await harness.value("SELECT count(*) FROM event") == 1


async def test_the_same_dataset_in_two_places_of_one_condition_counts_in_both(harness):
    await harness.load(dag("d", task("t"), on="a & a"))
    await harness.post("a1")
    assert (await harness.order()).events == ["a1"]
    assert await harness.rows("SELECT input FROM run_event ORDER BY input") == [(0,), (1,)]


async def test_an_event_is_as_its_sender_says(harness):
    await harness.load(dag("d", task("t"), on="a"))
    moment = datetime(2020, 2, 2, tzinfo=UTC)
    event = NewEvent("X://a/", {"n": [1, {"é": None}]}, "p", moment)
    (recorded,) = await harness.call(RecordEvents((event,), (None,), source="cli"))
    (seen,) = (await harness.order()).info.events
    assert (seen.dataset, seen.extra, seen.partition, seen.time, seen.source) == (
        "x://a", event.extra, "p", moment, "cli"
    )  # fmt: skip
    assert seen.event_id == recorded.event_id
    assert await harness.value("SELECT partition FROM run") is None
