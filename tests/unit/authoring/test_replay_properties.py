"""Whatever fails and wherever a process dies, a task gives what it would give undisturbed."""

import asyncio
from ast import literal_eval
from collections import Counter
from itertools import takewhile

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pubsubflow import Context, Dataset, StepFailed, WaitTimeout
from pubsubflow.authoring.runtime.wait_specs import TaskDeferred
from pubsubflow.model.runs.waits import begin_wait, drop_failures
from support.replay import NOW, RecordingHost, completed, dag_of, run_once, timed_out

FAILURES = st.integers(0, 2)
CAUGHT = st.booleans()
STEPS = st.tuples(st.just("step"), FAILURES, CAUGHT, st.booleans())
WAITS = st.tuples(st.just("wait"), FAILURES, CAUGHT)
FIRSTS = st.tuples(st.just("first"), st.integers(0, 2), st.just(value=True))
BESIDES = st.tuples(
    st.just("beside"), st.lists(st.tuples(FAILURES, st.integers(0, 3)), min_size=1, max_size=4),
    CAUGHT,
)  # fmt: skip
FAULTS = st.tuples(st.just("fault"), FAILURES)
PROGRAMS = st.lists(STEPS | WAITS | FIRSTS | BESIDES | FAULTS, max_size=6)
CRASHES = st.dictionaries(st.integers(0, 12), st.sampled_from(["before", "after"]), max_size=3)
PLACES = [Dataset(f"s3://lake/{name}") for name in "abc"]


FAILED = {"StepFailed", "WaitTimeout"}


class SideEffects:
    """How often everything still fails, and what was done: an effect for each step that worked."""

    def __init__(self, program):
        self.left = {}
        for number, op in enumerate(program):
            if op[0] in ("step", "wait", "fault"):
                self.left[number] = op[1]
            if op[0] == "beside":
                self.left.update({(number, i): part[0] for i, part in enumerate(op[1])})
        self.done = Counter()

    def fails(self, name):
        self.left[name] -= 1
        return self.left[name] >= 0

    def failed(self, step):
        """A failure counts when it is recorded."""
        if step.error is not None:
            self.left[literal_eval(step.error.message)] -= 1

    def do(self, name):
        if self.left[name] > 0:
            raise OSError(f"{name}")
        self.done[name] += 1
        return f"value {name}"

    async def ado(self, name, rounds=0):
        for _ in range(rounds):
            await asyncio.sleep(0)
        return self.do(name)


def as_task(program, side_effects):
    """Return a task that does what the program says."""

    async def body(ctx: Context):
        seen = []
        for number, op in enumerate(program):
            try:
                seen += await do(ctx, side_effects, number, op)
            except (StepFailed, WaitTimeout) as error:
                if not op[2]:
                    raise
                seen.append(type(error).__name__)
        return seen

    return dag_of(body)


async def do(ctx, side_effects, number, op):
    if op[0] == "step":
        call = side_effects.do if op[3] else side_effects.ado
        return [await ctx.step(f"step {number}", call, number)]
    if op[0] == "wait":
        return [(await ctx.wait_for_event(PLACES[0], timeout=5)).extra["n"]]
    if op[0] == "first":
        return [(await ctx.first(*PLACES)).index]
    if op[0] == "beside":
        return await beside(ctx, side_effects, number, op)
    if side_effects.fails(number):
        raise OSError("a fault of the function itself")
    return []


async def beside(ctx, side_effects, number, op):
    steps = [
        ctx.step("beside", side_effects.ado, (number, i), part[1]) for i, part in enumerate(op[1])
    ]
    found = await asyncio.gather(*steps, return_exceptions=True)
    failed = [each for each in found if isinstance(each, Exception)]
    if failed and not op[2]:
        raise failed[0]
    return [type(each).__name__ if each in failed else each for each in found]


def undisturbed(program):
    """Return what the task returns and does when it is run in one go, attempt for attempt."""
    side_effects = SideEffects(program)
    known = {}
    while True:
        seen, done = [], []
        for number, op in enumerate(program):
            if op[0] == "fault":
                if side_effects.fails(number):
                    break
                continue
            done.append(number)
            known[number] = results = perform(side_effects, number, op, known.get(number, {}))
            seen += results.values()
            if not op[2] and FAILED & set(results.values()):
                break
        else:
            return seen, side_effects.done
        beside = [*takewhile(lambda number: program[number][0] == "beside", reversed(done))]
        for number in beside or done[-1:]:
            known[number] = {n: each for n, each in known[number].items() if each not in FAILED}


def perform(side_effects, number, op, known):
    """Return what an operation gives, by name; what is known is not done again."""
    if op[0] == "first":
        return {number: op[1]}
    if op[0] == "wait":
        if number not in known:
            known = {number: "WaitTimeout" if side_effects.fails(number) else number}
        return known
    names = [number] if op[0] == "step" else [(number, i) for i, _ in enumerate(op[1])]
    found = dict(known)
    for name in names:
        if name not in found:
            try:
                found[name] = side_effects.do(name)
            except OSError:
                side_effects.left[name] -= 1
                found[name] = "StepFailed"
    return {name: found[name] for name in names}


async def disturbed(program, crashes, lost_waits):
    """Return what the task returns and does while its processes die and its results get lost."""
    side_effects = SideEffects(program)
    dag = as_task(program, side_effects)
    host = RecordingHost()
    again = Counter()

    def lose(step):
        verdict = crashes.get(host.recorded)
        host.recorded += 1
        if verdict == "before" and step.error is None:
            name = step.label.removeprefix("step ")
            again[int(name) if name.isdigit() else "beside"] += 1
        return verdict

    def answer(waiting, number):
        op = program[number]
        if op[0] == "first":
            return completed(waiting, 0, slot=op[1])
        return timed_out(waiting) if side_effects.fails(number) else completed(waiting, number)

    host.ends_at, host.on_recorded = lose, side_effects.failed
    attempt = 1
    for _ in range(200):
        with anyio.CancelScope() as host.scope:
            try:
                return await run_once(dag, host, attempt), side_effects.done, again
            except TaskDeferred as deferred:
                if lost_waits and lost_waits.pop():
                    continue
                waiting = begin_wait(deferred.wait_set, NOW.timestamp())
                host.journal.append(answer(waiting, place_of(program, waiting.key)))
            except asyncio.CancelledError:
                assert host.scope.cancel_called  # gather makes ones that the scope does not know
            except (OSError, StepFailed, WaitTimeout):
                attempt += 1
                host.journal = list(drop_failures(host.journal))
    raise AssertionError("it does not come to an end")


def place_of(program, key):
    """Return which operation has a position in the record."""
    own = [n for n, op in enumerate(program) if op[0] in ("step", "wait", "first")]
    return own[int(key)]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PROGRAMS, CRASHES, st.lists(st.booleans(), max_size=4))
def test_record_and_replay_is_what_an_undisturbed_run_does(program, crashes, lost_waits):
    value, done, again = anyio.run(disturbed, program, dict(crashes), list(lost_waits))
    expected, effects = undisturbed(program)
    assert value == expected
    for name, times in done.items():
        twice = again["beside" if isinstance(name, tuple) else name]
        lost_beside = crashes if isinstance(name, tuple) else ()
        assert effects[name] <= times <= effects[name] + twice + len(lost_beside)
    assert done.keys() == effects.keys()
    if not crashes:
        assert done == effects


@pytest.mark.parametrize("verdict", ["before", "after"])
def test_a_step_is_done_again_only_when_its_record_is_lost(verdict):
    program = [("step", 0, False, False), ("wait", 0, False)]
    value, done, _ = anyio.run(disturbed, program, {0: verdict}, [])
    assert (value, done[0]) == (["value 0", 1], 2 if verdict == "before" else 1)
