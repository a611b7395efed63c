"""A worker's budget is never exceeded, and what is large comes to its turn."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pubsubflow.model.wire.task_resources import ResourcesSpec
from pubsubflow.worker.resources.budget import Budget

MEMORY, CPU = 1000, 4.0
resources = st.builds(
    ResourcesSpec,
    memory=st.none() | st.integers(1, 1200),
    cpu=st.none() | st.sampled_from([0.1, 0.5, 1.5, 4.0, 5.0]),
)


def taken(budget, task, wanted, *, age, now):
    if not budget.admits(task, wanted, age=age, now=now):
        return False
    budget.take(task, wanted)
    return True


class Taking(RuleBasedStateMachine):
    """Tasks of any size come, come again and end in any order."""

    def __init__(self):
        super().__init__()
        self.budget = Budget("w", MEMORY, CPU)
        self.held = {}
        self.now = 0.0

    @rule(task=st.integers(0, 9), wanted=resources, age=st.floats(0, 60))
    def take(self, task, wanted, age):
        if task not in self.held and taken(self.budget, task, wanted, age=age, now=self.now):
            self.held[task] = wanted

    @rule(task=st.integers(0, 9))
    def end(self, task):
        self.budget.release(task)
        self.held.pop(task, None)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def never_more_than_there_is(self):
        memory = sum(each.memory or 0 for each in self.held.values())
        cpu = sum(each.cpu or 0 for each in self.held.values())
        assert memory <= MEMORY
        assert cpu <= CPU + 1e-5
        assert self.budget.room.free_memory == MEMORY - memory
        assert abs(self.budget.room.free_cpu - (CPU - cpu)) < 1e-5


TestTaking = Taking.TestCase
TestTaking.settings = settings(max_examples=30, stateful_step_count=30)


@given(st.lists(st.floats(0, 29), max_size=20))
def test_what_is_large_starts_although_small_ones_keep_coming(ages):
    budget = Budget("w", 10, None)
    small, large = ResourcesSpec(memory=4), ResourcesSpec(memory=10)
    assert taken(budget, "a", small, age=0, now=0)
    assert not taken(budget, "large", large, age=31, now=1)
    for number, age in enumerate(ages):
        assert not taken(budget, number, small, age=age, now=2)
    budget.release("a")
    assert taken(budget, "large", large, age=33, now=3)


def test_the_claim_of_what_does_not_come_again_ends():
    budget = Budget("w", 10, None)
    small = ResourcesSpec(memory=4)
    assert taken(budget, "a", small, age=0, now=0)
    assert not taken(budget, "large", ResourcesSpec(memory=10), age=31, now=1)
    assert not taken(budget, "b", small, age=0, now=20)
    assert taken(budget, "b", small, age=0, now=22)


def test_without_a_budget_everything_has_room():
    budget = Budget("w", None, None)
    assert taken(budget, "a", ResourcesSpec(memory=1 << 50, cpu=10_000), age=0, now=0)
    assert budget.room.free_memory is None
