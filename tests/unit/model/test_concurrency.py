"""The next task: never more than fit, none waits that fits, the first in order first."""

from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow.model.runs.concurrency import Capacity, Limit, Waiter, WaitQueue

NAMES = ["pool:p", "pool:q", "dag:d", "key:k", "rate:r"]


@st.composite
def worlds(draw):
    slots = {"p": draw(st.integers(0, 6)), "q": draw(st.none() | st.integers(0, 4))}
    slots = {name: most for name, most in slots.items() if most is not None}
    lines, waiters, position = [], [], 0
    groups = draw(
        st.lists(st.sets(st.sampled_from(NAMES), min_size=1), max_size=5, unique_by=frozenset)
    )
    for number, names in enumerate(groups):
        most = {"dag:d": 2, "key:k": 1}
        weight = draw(st.sampled_from([1, 1, 2, 3]))
        limits = tuple(
            Limit(name, most.get(name, 0), weight if name == "pool:p" else 1)
            for name in sorted(names)
        )
        waiting = draw(st.integers(0, 5))
        lines.append(WaitQueue(number, limits, 0, waiting))
        for _ in range(waiting):
            position += 1
            waiters.append(
                Waiter(
                    (position, 0, -1), number, draw(st.integers(-1, 1)), draw(st.integers(0, 50))
                )
            )
    return slots, {"r": draw(st.integers(0, 4))}, lines, waiters


def in_order(waiters):
    return sorted(waiters, key=lambda each: (-each.priority, each.position))


def reference(slots, starts, lines, waiters):
    """Choose as a person would, over all waiters: one after the other, each if it fits."""
    left = dict.fromkeys(NAMES, 99) | {"dag:d": 2, "key:k": 1, "rate:r": starts["r"]}
    left |= {f"pool:{name}": most for name, most in slots.items()}
    chosen, gathering = [], set()
    for waiter in in_order(waiters):
        limits = lines[waiter.queue].limits
        lacking = {each for each in limits if left[each.name] < each.weight}
        most = {each: slots.get(each.name[5:], 99) for each in lacking}
        gathers = all(1 < each.weight <= most[each] for each in lacking)
        if not lacking:
            chosen.append(waiter)
        elif not gathers or gathering & {each.name for each in lacking}:
            continue
        gathering |= {each.name for each in lacking}
        for each in limits:
            # A start is taken by a task that starts alone.
            if not (lacking and each.name == "rate:r"):
                left[each.name] -= each.weight
    return chosen


@settings(deadline=None, max_examples=300)
@given(worlds())
def test_slots_go_to_the_first_that_fit_until_none_fits(world):
    slots, starts, lines, waiters = world
    room = Capacity(lines, slots, starts)
    first = []
    for line in lines:
        mine = [each for each in waiters if each.queue == line.number]
        first += in_order(mine)[: room.heads(line)]
    chosen = room.choose(lines, first)
    expected = reference(*world)
    ordered = [(each.priority, each.position, each.queue) for each in chosen]
    assert ordered == [(each.priority, each.position, each.queue) for each in expected]
    for line in lines:
        left = line.waiting - sum(each.queue == line.number for each in chosen)
        assert not left or room.full(line)


def test_a_task_that_takes_many_slots_is_not_passed_for_ever():
    heavy = WaitQueue(1, (Limit("pool:p", 0, 3),), 0, 1)
    light = WaitQueue(2, (Limit("pool:p"),), 4, 1)
    positions = count(1)
    waiting = [Waiter((1, 0, -1), 1, 0, 0)]
    for step in range(6):  # one light task ends and another one comes, each time
        light.used -= 1
        light.waiting = 1
        waiters = [*waiting, Waiter((2, step, -1), 2, 0, next(positions))]
        chosen = Capacity([heavy, light], {"p": 4}).choose([heavy, light], waiters)
        if chosen:
            assert (step, chosen[0].queue) == (2, 1)
            return
    raise AssertionError("it waits for ever")


def test_a_task_that_its_pool_can_never_hold_blocks_none():
    heavy = WaitQueue(1, (Limit("pool:p", 0, 9),), 0, 1)
    light = WaitQueue(2, (Limit("pool:p"),), 0, 1)
    waiters = [Waiter((1, 0, -1), 1, 5, 0), Waiter((2, 0, -1), 2, 0, 1)]
    room = Capacity([heavy, light], {"p": 4})
    assert [each.queue for each in room.choose([heavy, light], waiters)] == [2]
    assert [(each.limit.weight, each.slots) for each in room.full(heavy)] == [(9, 4)]
