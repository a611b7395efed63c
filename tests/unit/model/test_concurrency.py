"""Who is next: never more than fit, nobody waits who fits, the first in order first."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow.model.runs.concurrency import Capacity, Limit, Waiter, WaitQueue

NAMES = ["pool:p", "pool:q", "dag:d", "key:k"]


@st.composite
def worlds(draw):
    slots = {"p": draw(st.integers(0, 4)), "q": draw(st.none() | st.integers(0, 4))}
    slots = {name: most for name, most in slots.items() if most is not None}
    lines, waiters, position = [], [], 0
    groups = draw(
        st.lists(st.sets(st.sampled_from(NAMES), min_size=1), max_size=5, unique_by=frozenset)
    )
    for number, names in enumerate(groups):
        most = {"dag:d": 2, "key:k": 1}
        limits = tuple(Limit(name, most.get(name, 0)) for name in sorted(names))
        waiting = draw(st.integers(0, 5))
        lines.append(WaitQueue(number, limits, 0, waiting))
        for _ in range(waiting):
            position += 1
            waiters.append(
                Waiter(
                    (position, 0, -1), number, draw(st.integers(-1, 1)), draw(st.integers(0, 50))
                )
            )
    return slots, lines, waiters


@settings(deadline=None)
@given(worlds())
def test_slots_go_to_the_first_that_fit_until_nobody_fits(world):
    slots, lines, waiters = world
    room = Capacity(lines, slots)
    first = []
    for line in lines:
        mine = sorted(
            (each for each in waiters if each.queue == line.number),
            key=lambda each: (-each.priority, each.position),
        )
        first += mine[: room.available(line)]
    chosen = room.choose(lines, first)

    expected, used = [], dict.fromkeys(NAMES, 0)
    for waiter in sorted(waiters, key=lambda each: (-each.priority, each.position)):
        limits = lines[waiter.queue].limits
        most = {limit.name: limit.most or slots.get(limit.name[5:], 99) for limit in limits}
        if all(used[name] < bound for name, bound in most.items()):
            expected.append(waiter)
            for name in most:
                used[name] += 1
    ordered = [(each.priority, each.position, each.queue) for each in chosen]
    assert ordered == [(each.priority, each.position, each.queue) for each in expected]
    for line in lines:
        left = line.waiting - sum(each.queue == line.number for each in chosen)
        assert not left or room.full(line)
