"""Votes: who counts, what decides, in every order."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.errors import InvalidInput
from pubsubflow.model.runs.approvals import (
    ApprovalClosed,
    NotEntitled,
    check_vote,
    decided_option,
    may_answer,
)
from pubsubflow.model.wire.approvals import ApprovalSpec, Vote

PEOPLE = ["ann", "bob", "cleo", "dora"]
OPTIONS = ("approve", "reject")
BY = ("user:ann", "user:bob", "user:cleo")


def spec(**more):
    return ApprovalSpec("id", "Go?", OPTIONS, **{"by": BY, "quorum": 2} | more)


votes = st.lists(
    st.builds(
        Vote,
        person=st.sampled_from(PEOPLE),
        role=st.just("viewer"),
        option=st.sampled_from(OPTIONS),
    )
)


@given(votes)
def test_an_option_wins_once_by_distinct_people_who_are_asked(offered):
    taken, decisions = [], []
    for vote in offered:
        decided = decided_option(spec(), taken)
        try:
            taken.append(check_vote(spec(), vote, taken))
        except NotEntitled:
            assert vote.person == "dora"
        except ApprovalClosed:
            assert decided is not None or vote.person in {each.person for each in taken}
        decisions.append(decided_option(spec(), taken))
    assert len({each.person for each in taken}) == len(taken)
    counts = {option: sum(each.option == option for each in taken) for option in OPTIONS}
    assert decided_option(spec(), taken) == next((o for o, c in counts.items() if c >= 2), None)
    assert all(before in (None, after) for before, after in pairwise(decisions))


@pytest.mark.parametrize(
    ("by", "role", "may"),
    [
        ("role:operator", "admin", True),
        ("role:operator", "operator", True),
        ("role:operator", "viewer", False),
        ("role:viewer", "emitter", False),
        ("user:ann", "viewer", True),
        ("user:bob", "admin", False),
    ],
)
def test_roles_include_those_below_them_and_names_are_exact(by, role, may):
    assert may_answer(spec(by=(by,)), "ann", role) is may


def test_values_are_for_forms_alone():
    vote = Vote(person="ann", role="viewer", option="approve", values={"x": 1})
    with pytest.raises(InvalidInput, match="the form has no value 'x'"):
        check_vote(spec(), vote, ())
    form = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    assert check_vote(spec(form=form), vote, ()) == vote
    assert check_vote(
        spec(form=form, defaults={"x": 2}), Vote(person="ann", role="viewer", option="approve"), ()
    ).values == {"x": 2}
