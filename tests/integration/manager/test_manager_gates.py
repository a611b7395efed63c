"""Which runs exist: conditions, pauses, limits, keys, requests that cannot be."""

from collections import Counter
from datetime import UTC, datetime
from functools import partial

import anyio
import pytest
from core_rig import post
from dag_specs import dag, task, uri

from pubsubflow.errors import DefinitionError, InvalidInput, NotFound
from pubsubflow.manager.inbox import MAX_KEY_CHARACTERS
from pubsubflow.model.wire.commands import PostEvents, SetPaused, StartRun
from pubsubflow.model.wire.messages import NewEvent

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


async def consumed(rig, dag_id="d"):
    """Return what each run of a DAG consumed, by the events' names."""
    rows = await rig.rows(
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
    rig = pair
    await rig.load(dag("d", task("t"), on=on))
    names = events.split()
    if how == "in one call":
        given = tuple(NewEvent(uri(name[0]), {"name": name}) for name in names)
        await rig.call(PostEvents(given, (None,) * len(given)))
    for number, name in enumerate(names if how != "in one call" else []):
        await rig.post(name, manager=number % 2 if how == "to two managers" else 0)
    assert await consumed(rig) == runs
    assert [(await rig.order()).events for _ in runs] == [run.split() for run in runs]


async def test_two_managers_lose_no_half_of_an_and(pair):
    rig = pair
    await rig.load(*(dag(f"d{n}", task("t"), on=f"a{n} & b{n}") for n in range(40)))
    calls = [
        partial(rig.call, post(f"{side}{n}"), manager=manager)
        for n in range(40)
        for manager, side in enumerate("ab")
    ]
    assert not [each for each in await side_by_side(*calls) if isinstance(each, Exception)]
    assert await rig.value("SELECT count(*) FROM run") == 40
    assert await rig.value("SELECT count(*) FROM pending") == 0


async def test_every_event_is_consumed_once_when_two_managers_race_for_one_gate(pair):
    rig = pair
    rig.automatic = lambda order: [order.result()]
    await rig.load(dag("d", task("t"), on="a & b", max_active_runs=2))
    calls = [
        partial(rig.post, f"{side}{n}", manager=n % 2) for n in range(60) for side in ("a", "b")
    ]
    await side_by_side(*calls)
    await rig.quiet()
    taken = Counter(
        await rig.rows(
            "SELECT event, place FROM run_event UNION ALL SELECT event, place FROM pending"
        )
    )
    assert len(taken) == 120
    assert set(taken.values()) == {1}
    assert set(await rig.states()) == {"success"}
    assert await rig.rows("SELECT active, queued FROM gate") == [(0, 0)]


async def test_the_same_key_gives_the_first_event(rig):
    await rig.load(dag("d", task("t"), on="a"))
    (first,) = await rig.call(post("a", keys=("k",)))
    assert not first.duplicate
    for _ in range(2):
        (again,) = await rig.call(post("a", keys=("k",)))
        assert (again.event_id, again.duplicate) == (first.event_id, True)
    assert await rig.value("SELECT count(*) FROM event") == 1
    assert await rig.value("SELECT count(*) FROM run") == 1


async def test_the_same_key_twice_in_one_call_and_in_one_batch(rig):
    await rig.load(dag("d", task("t"), on="a"))
    first, second, other, free = await rig.call(
        post("a", "a", "a", "a", keys=("k", "k", "l", None))
    )
    assert [first.duplicate, second.duplicate, other.duplicate, free.duplicate] == [
        False, True, False, False
    ]  # fmt: skip
    assert first.event_id == second.event_id
    answers = await side_by_side(*[partial(rig.call, post("a", keys=("m",)))] * 20)
    assert sum(not recorded.duplicate for (recorded,) in answers) == 1
    assert len({recorded.event_id for (recorded,) in answers}) == 1
    assert await rig.value("SELECT count(*) FROM event") == 4
    assert await rig.value("SELECT count(*) FROM run") == 4


async def test_the_same_keys_at_two_managers_at_once(pair):
    rig = pair
    await rig.load(dag("d", task("t"), on="a"))
    calls = [
        partial(rig.call, post("a", "a", keys=(f"k{n}", f"k{(n + 1) % 20}")), manager=manager)
        for n in range(20)
        for manager in (0, 1)
    ]
    answers = [recorded for each in await side_by_side(*calls) for recorded in each]
    assert sum(not recorded.duplicate for recorded in answers) == 20
    assert await rig.value("SELECT count(*) FROM event") == 20
    assert await rig.value("SELECT count(*) FROM run") == 20


async def test_a_run_key_gives_one_run(pair):
    rig = pair
    await rig.load(dag("d", task("t")), dag("e", task("t")))
    calls = [
        partial(rig.call, StartRun(dag_id, run_key="k"), manager=manager)
        for dag_id in ("d", "e")
        for manager in (0, 1)
        for _ in range(5)
    ]
    answers = await side_by_side(*calls)
    assert [len(set(answers[:10])), len(set(answers[10:]))] == [1, 1]
    assert await rig.call(StartRun("d", run_key="k")) == answers[0]
    assert await rig.value("SELECT count(*) FROM run") == 2


async def test_starting_without_a_key_starts_every_time(rig):
    await rig.load(dag("d", task("t")))
    runs = {await rig.call(StartRun("d")) for _ in range(3)}
    assert len(runs) == 3
    assert len(await rig.states()) == 3


async def test_params_go_over_the_defaults_and_are_checked_first(rig):
    await rig.load(dag("d", task("t"), params={"day": "today", "n": 1}))
    moment = datetime(2026, 11, 20, tzinfo=UTC)
    asked = {"logical_time": moment, "cause": "because \x00", "partition": "p\x00"}
    await rig.call(StartRun("d", {"n": 2}, **asked))
    info = (await rig.order()).info
    assert info.partition == "p\\u0000"
    assert info.params == {"day": "today", "n": 2}
    assert (info.kind, info.logical_time, info.cause) == ("manual", moment, "because \\u0000")
    for params in ({"m": 1}, {"n": "two"}, {"day": "x" * 300_000}):
        with pytest.raises(InvalidInput):
            await rig.call(StartRun("d", params))
    assert len(await rig.states()) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("optional.of(1)", "optional.of"),
        ("event.extra.missing", "failed"),
        ("size(event.extra.pad)", "must be a string"),
        ("event.extra.pad + event.extra.pad", "are larger than"),
    ],
)
async def test_params_from_events_that_cannot_be_harm_no_other_dag(rig, text, reason):
    await rig.load(
        dag("bad", task("t"), on="a", params={"p": ""}, params_from={"p": text}),
        dag("d", task("t"), on="a"),
    )
    await rig.post("a1", extra={"pad": "x" * 150_000})
    assert (await rig.order()).info.dag_id == "d"
    assert await rig.states("bad") == []
    (letter,) = await rig.rows("SELECT kind, subject, reason FROM dead_letter")
    assert letter[:2] == ("params", "bad")
    assert reason in letter[2]
    assert await rig.rows("SELECT place, fate, reason FROM event_fate") == [
        (0, "dead", letter[2])
    ]  # fmt: skip
    assert await rig.rows("SELECT active, queued FROM gate ORDER BY dag") == [(0, 0), (1, 0)]


async def test_what_cannot_be_asked_for_is_refused_alone(rig):
    await rig.load(dag("d", task("t"), on="a"))
    answers = await side_by_side(
        partial(rig.call, StartRun("nobody")),
        partial(rig.call, SetPaused("nobody", paused=True)),
        partial(rig.call, PostEvents((NewEvent("no uri"),), (None,))),
        partial(rig.call, post("a", "a", keys=("bad", "b" * (MAX_KEY_CHARACTERS + 1)))),
        partial(rig.call, post("a", keys=("nul\x00",))),
        partial(rig.call, post("a", extra={"pad": "x" * 300_000})),
        partial(rig.call, StartRun("d", run_key="k" * (MAX_KEY_CHARACTERS + 1))),
        partial(rig.call, post("a", partition="p\x00", extra={"nul": "\x00"})),
    )
    assert [type(answer) for answer in answers] == [
        NotFound, NotFound, DefinitionError, InvalidInput, InvalidInput, InvalidInput, InvalidInput,
        list,
    ]  # fmt: skip
    assert await rig.rows("SELECT partition, extra FROM event") == [
        ("p\\u0000", {"nul": "\\u0000"})
    ]
    (free,) = await rig.call(post("a", keys=("bad",)))
    assert not free.duplicate, "a refused call claims no key"


async def pause(rig, dag_id="d"):
    await rig.call(SetPaused(dag_id, paused=True))


async def unpause(rig, dag_id="d"):
    await rig.call(SetPaused(dag_id, paused=False))


async def test_a_paused_dag_holds_its_events_and_fires_for_each_when_it_goes_on(rig):
    await rig.load(dag("d", task("t"), on="a"))
    await pause(rig)
    await pause(rig)
    await rig.post("a1", "a2", "a3")
    assert await rig.states() == []
    assert await rig.rows("SELECT since = (SELECT min(id) FROM event) FROM gate") == [(True,)]
    await unpause(rig)
    assert await rig.rows("SELECT since FROM gate") == [(None,)]
    assert await consumed(rig) == ["a1", "a2", "a3"]
    assert [(await rig.order()).events for _ in range(3)] == [["a1"], ["a2"], ["a3"]]
    await unpause(rig)
    assert len(await rig.states()) == 3
    assert await rig.value("SELECT count(*) FROM pending") == 0


async def test_a_paused_dag_may_drop_its_events(rig):
    await rig.load(dag("d", task("t"), on="a & b", on_pause="drop"))
    await rig.post("a1")
    await pause(rig)
    await rig.post("a2", "b3")
    assert await rig.rows("SELECT since FROM gate") == [(None,)]
    await unpause(rig)
    assert await consumed(rig) == []
    await rig.post("b4")
    assert await consumed(rig) == ["a1 b4"]
    fates = (
        "SELECT extra->>'name', fate, reason FROM event_fate JOIN event ON id = event ORDER BY id"
    )
    assert await rig.rows(fates) == [
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
async def test_a_pause_changes_nothing_about_which_runs_there_are(rig, on, events, runs, paused_at):
    await rig.load(dag("d", task("t"), on=on))
    for number, name in enumerate(events.split()):
        if number == paused_at:
            await pause(rig)
        if number == paused_at + 3:
            await unpause(rig)
        await rig.post(name)
    await unpause(rig)
    assert await consumed(rig) == runs


async def test_what_is_held_survives_a_new_condition(rig):
    await rig.load(dag("d", task("t"), on="a & b"))
    await pause(rig)
    await rig.post("a1", "b2", "a3")
    await rig.load(dag("d", task("t"), on="b | a"))
    await unpause(rig)
    assert await consumed(rig) == ["a1", "b2", "a3"]


async def test_a_paused_dag_can_be_asked(rig):
    await rig.load(dag("d", task("t")))
    await pause(rig)
    await rig.call(StartRun("d"))
    await rig.finish("t")
    await rig.until_states("success")


async def test_more_held_events_than_run_numbers_at_hand(rig):
    await rig.load(dag("d", task("t"), on="a", max_active_runs=2000))
    await pause(rig)
    given = tuple(NewEvent(uri("a"), {"name": f"a{n}"}) for n in range(1500))
    await rig.call(PostEvents(given, (None,) * len(given)))
    answers = await side_by_side(
        partial(unpause, rig), *[partial(rig.call, StartRun("d")) for _ in range(20)]
    )
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert await rig.value("SELECT count(DISTINCT id) FROM run") == 1520


async def test_runs_over_the_limit_wait_in_line(rig):
    await rig.load(dag("d", task("t"), on="a", max_active_runs=2))
    await rig.post("a1", "a2", "a3", "a4", "a5")
    assert await rig.states() == ["running"] * 2 + ["queued"] * 3
    first, second = await rig.order(), await rig.order()
    assert first.events + second.events == ["a1", "a2"]
    await rig.report(second.result())
    third = await rig.order()
    assert third.events == ["a3"]
    await rig.report(third.result("failed"))
    assert (await rig.finish("t")).events == ["a4"]
    assert (await rig.finish("t")).events == ["a5"]
    await rig.report(first.result())
    await rig.until_states("success", "success", "failed", "success", "success")
    assert await rig.rows("SELECT active, queued FROM gate") == [(0, 0)]


async def test_a_line_keeps_its_order_within_one_batch(rig):
    await rig.load(dag("d", task("t"), on="a", max_active_runs=1))
    given = tuple(NewEvent(uri("a"), {"name": f"a{n}"}) for n in range(30))
    await rig.call(PostEvents(given[:15], (None,) * 15))
    await rig.call(PostEvents(given[15:], (None,) * 15))
    order = []
    for _ in range(30):
        order += (await rig.finish("t")).events
    assert order == [f"a{n}" for n in range(30)]


async def test_a_line_of_runs_without_work_empties_itself(rig):
    await rig.load(
        dag("d", task("t", kind="empty", emits=["b"]), on="a", max_active_runs=1),
        dag("e", task("u"), on="b"),
    )
    given = tuple(NewEvent(uri("a")) for _ in range(50))
    await rig.call(PostEvents(given, (None,) * 50))
    assert await rig.states("d") == ["success"] * 50
    assert len(await rig.states("e")) == 50
    assert await rig.rows("SELECT active, queued FROM gate ORDER BY dag") == [(0, 0), (16, 34)]


async def test_a_new_version_is_for_new_runs(rig):
    await rig.load(dag("d", task("t"), task("u", "t"), on="a", max_active_runs=1))
    await rig.post("a1", "a2")
    await rig.load(dag("d", task("t"), on="a", max_active_runs=5))
    await rig.post("a3")
    await rig.finish("t")
    await rig.finish("u")
    found = [await rig.finish("t"), await rig.finish("t")]
    assert sorted(order.events[0] for order in found) == ["a2", "a3"]
    await rig.finish("u")
    await rig.until_states("success", "success", "success")
    numbers = "SELECT number FROM run JOIN dag_version AS v ON v.id = version ORDER BY run.run_id"
    assert await rig.rows(numbers) == [(1,), (1,), (2,)]


async def test_one_event_serves_every_subscriber(rig):
    await rig.load(*(dag(f"d{n}", task("t"), on="a") for n in range(50)))
    await rig.post("a1")
    assert {(await rig.order()).info.dag_id for _ in range(50)} == {f"d{n}" for n in range(50)}
    assert await rig.value("SELECT count(*) FROM event") == 1


async def test_the_same_dataset_in_two_places_of_one_condition_counts_in_both(rig):
    await rig.load(dag("d", task("t"), on="a & a"))
    await rig.post("a1")
    assert (await rig.order()).events == ["a1"]
    assert await rig.rows("SELECT place FROM run_event ORDER BY place") == [(0,), (1,)]


async def test_an_event_is_as_its_sender_says(rig):
    await rig.load(dag("d", task("t"), on="a"))
    moment = datetime(2020, 2, 2, tzinfo=UTC)
    event = NewEvent("X://a/", {"n": [1, {"é": None}]}, "p", moment)
    (recorded,) = await rig.call(PostEvents((event,), (None,), source="cli"))
    (seen,) = (await rig.order()).info.events
    assert (seen.dataset, seen.extra, seen.partition, seen.time, seen.source) == (
        "x://a", event.extra, "p", moment, "cli"
    )  # fmt: skip
    assert seen.event_id == str(recorded.event_id)
    assert await rig.value("SELECT partition FROM run") == "p"
