"""Which version of a DAG is in force, and which one a run takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pubsubflow.errors import InvalidInput
from pubsubflow.model.source.version_choice import (
    VersionsInUse,
    check_share,
    choose_promotion,
    choose_rollback,
    takes_canary,
)
from support.specs import dag, task

KEYS = [f"dataset:{number}" for number in range(2000)]
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)


class Versions:
    """A DAG in memory, with imports as a loader makes them."""

    def __init__(self):
        self.state = VersionsInUse(in_force=1, newest=1)
        self.last = 1

    def imported(self, number):
        """Import a file that defines a version: a new one, or one that was there before."""
        self.last = max(self.last, number)
        in_force = self.state.in_force if self.state.pinned else number
        self.state = replace(self.state, newest=number, in_force=in_force)

    def chosen(self, choice):
        self.state = replace(
            self.state, in_force=choice.version, pinned=choice.pinned, canary=choice.canary
        )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("import"), st.integers(0, 3)),
        st.tuples(st.just("promote"), st.none() | st.integers(1, 6)),
        st.tuples(st.just("share"), st.integers(1, 6)),
        st.tuples(st.just("rollback"), st.none() | st.integers(1, 6)),
    ),
    max_size=15,
)


@given(steps)
def test_an_import_changes_what_is_in_force_only_where_the_dag_follows_its_file(steps):
    made = Versions()
    for step, number in steps:
        before = made.state
        try:
            match step:
                case "import":
                    # 0: a new version; another: the file is as it was that many versions ago.
                    made.imported(made.last + 1 if number == 0 else max(1, made.last - number))
                    assert made.state.in_force in (before.in_force, made.state.newest)
                    assert (made.state.in_force == before.in_force) or not before.pinned
                case "promote":
                    made.chosen(choose_promotion(before, number))
                    assert made.state.in_force == (before.newest if number is None else number)
                    assert made.state.canary is None
                case "share":
                    made.chosen(choose_promotion(before, number, 0.1))
                    assert made.state.in_force == before.in_force != made.state.canary == number
                case "rollback":
                    earlier = before.in_force - 1 or None
                    made.chosen(choose_rollback(before, number, earlier))
                    assert made.state.pinned
                    assert made.state.in_force <= before.in_force
                    assert made.state.canary is None
        except InvalidInput:
            assert made.state == before
        # One that follows its file has its version; a share needs two that stay.
        assert made.state.pinned or made.state.in_force == made.state.newest
        assert made.state.canary is None or made.state.pinned


def test_a_rollback_ends_a_share_before_it_goes_back():
    state = VersionsInUse(3, 4, pinned=True, canary=4)
    assert choose_rollback(state, None, 2).version == 3
    assert choose_rollback(replace(state, canary=None), None, 2).version == 2
    assert choose_rollback(state, 1, 2).version == 1


@pytest.mark.parametrize(
    ("number", "share", "words"),
    [
        (None, 0.1, "takes all runs"),
        (2, 0, "rollback"),
        (2, 1.5, "up to 100"),
        (3, 0.5, "in force"),
    ],
)
def test_a_share_that_is_none_is_refused(number, share, words):
    with pytest.raises(InvalidInput, match=words):
        choose_promotion(VersionsInUse(3, 3), number, share)


def test_there_may_be_nothing_to_go_back_to():
    with pytest.raises(InvalidInput, match="the first"):
        choose_rollback(VersionsInUse(1, 1), None, None)
    with pytest.raises(InvalidInput, match="promote DAG 4"):
        choose_rollback(VersionsInUse(3, 5, pinned=True), 4, 2)


@given(st.integers(1, 1000), st.integers(1, 1000), st.sampled_from(KEYS), shares, shares)
def test_a_run_takes_the_same_version_each_time_and_stays_under_a_larger_share(
    dag_number, canary, key, one, other
):
    small, large = sorted((one, other))
    assert takes_canary(dag_number, canary, key, small) == takes_canary(
        dag_number, canary, key, small
    )
    assert takes_canary(dag_number, canary, key, small) <= takes_canary(
        dag_number, canary, key, large
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_kept(share):
    taken = sum(takes_canary(7, 8, key, share) for key in KEYS)
    assert abs(taken / len(KEYS) - share) < 0.04  # four standard deviations of 2,000 draws
    other = sum(takes_canary(7, 9, key, share) != takes_canary(7, 8, key, share) for key in KEYS)
    assert other > 0  # another version has other runs


def test_only_versions_with_the_same_schedule_and_params_share_runs():
    spec = dag("d", task("a"), on="x", source="one")
    check_share(spec, dag("d", task("a"), task("b"), on="x", source="two"))
    with pytest.raises(InvalidInput, match="differ in schedule, params,"):
        check_share(spec, dag("d", task("a"), on="x | y", params={"n": 1}))
