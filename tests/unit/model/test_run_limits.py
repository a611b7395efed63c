"""Limits of runs: never exceeded, no room left idle, and the first in order first."""

from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.limits.run_limits import (
    DagRuns,
    WaitingRun,
    choose_runs,
    count_use,
    free_for,
    limits_of_tags,
)

LIMITS = ("runs:tag:a", "runs:tag:b")
dags = st.lists(
    st.tuples(
        st.frozensets(st.sampled_from(LIMITS), min_size=1),
        st.integers(0, 4),  # active
        st.integers(0, 2),  # apart, of these
        st.integers(1, 4),  # max_active_runs
        st.integers(-1, 1),  # priority
        st.lists(st.booleans(), max_size=5),  # whether each queued run is counted apart
    ),
    min_size=1,
    max_size=5,
)


@st.composite
def situations(draw):
    limits = {name: draw(st.integers(0, 8)) for name in LIMITS}
    found, waiting = {}, []
    for number, (held_by, active, apart, most, priority, queue) in enumerate(draw(dags)):
        found[number] = DagRuns(
            number, held_by, active, min(active, apart), len(queue), most, priority
        )
        waiting += [(number, each) for each in queue]
    positions = draw(st.permutations(range(len(waiting))))
    runs = [
        WaitingRun(dag, 100 + position, position, apart)
        for position, (dag, apart) in zip(positions, waiting, strict=True)
    ]
    return limits, found, runs


@given(situations())
def test_limits_hold_no_room_is_idle_and_the_first_is_first(situation):
    limits, found, waiting = situation
    use = count_use(limits, found.values())
    chosen = choose_runs(waiting, found, use)
    assert len({each.run for each in chosen}) == len(chosen)

    started = dict.fromkeys(limits, 0)
    ordinary = dict.fromkeys(found, 0)
    for run in chosen:
        ordinary[run.dag] += not run.apart
        for name in found[run.dag].limits:
            started[name] += 1
    for name, slots in limits.items():
        assert started[name] == 0 or use[name].active + started[name] <= slots
    for number, dag in found.items():
        assert ordinary[number] == 0 or dag.active - dag.apart + ordinary[number] <= dag.most

    def fits(run):
        dag = found[run.dag]
        room = run.apart or dag.active - dag.apart + ordinary[run.dag] < dag.most
        return room and all(use[n].active + started[n] < limits[n] for n in dag.limits)

    left = [run for run in waiting if run not in chosen]
    assert not any(map(fits, left))
    # Of two runs that need the same, the later one does not start alone.
    for late in chosen:
        for early in left:
            if (late.dag, late.apart) == (early.dag, early.apart):
                assert late.position < early.position


def test_the_highest_priority_goes_first_then_the_one_that_waited_longest():
    heavy = frozenset({"runs:tag:heavy"})
    found = {n: DagRuns(n, heavy, queued=2, priority=n == 2) for n in (1, 2)}
    waiting = [WaitingRun(1, 11, 1), WaitingRun(2, 21, 2), WaitingRun(1, 12, 3)]
    use = count_use({"runs:tag:heavy": 2}, found.values())
    assert [run.run for run in choose_runs(waiting, found, use)] == [21, 11]


def test_a_run_that_lacks_room_elsewhere_holds_up_none_behind_it():
    both, one = frozenset(LIMITS), frozenset(LIMITS[:1])
    found = {1: DagRuns(1, both, active=1, queued=1), 2: DagRuns(2, one, queued=1)}
    use = count_use(dict.fromkeys(LIMITS, 1) | {LIMITS[0]: 2}, found.values())
    assert [free_for(dag, use) for dag in found.values()] == [0, 1]
    assert use[LIMITS[1]].describe() == "tag b: 1 of 1 runs active"
    waiting = [WaitingRun(1, 11, 1), WaitingRun(2, 21, 2)]
    assert [run.run for run in choose_runs(waiting, found, use)] == [21]


def test_a_limit_is_that_of_the_whole_tag():
    assert limits_of_tags(("heav", "heavy", "b"), {*LIMITS, "runs:tag:heavy"}) == {
        "runs:tag:heavy",
        "runs:tag:b",
    }
