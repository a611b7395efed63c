"""The one table of transitions."""

import pytest

from pubsubflow.errors import IllegalTransition
from pubsubflow.model.runs.states import (
    LIVE,
    RUN_TRANSITIONS,
    TASK_TRANSITIONS,
    RunState,
    TaskState,
    advance_state,
)


def test_the_tables_name_every_state():
    assert set(RUN_TRANSITIONS) == set(RunState)
    assert set(TASK_TRANSITIONS) == set(TaskState)


def test_nothing_follows_a_final_state_and_something_every_other():
    for state, after in TASK_TRANSITIONS.items():
        assert state.final == (not after)
    assert {state for state in TaskState if not state.final} == LIVE


def test_a_run_that_has_ended_only_goes_on_as_one_that_is_made():
    for state, after in RUN_TRANSITIONS.items():
        if state.final:
            assert after == {RunState.QUEUED, RunState.RUNNING}


@pytest.mark.parametrize("table", [RUN_TRANSITIONS, TASK_TRANSITIONS])
def test_every_live_state_can_be_cancelled_and_leads_to_an_end(table):
    for state, after in table.items():
        if not state.final:
            assert type(state)("cancelled") in after
            seen, waiting = set(), [state]
            while waiting:
                found = waiting.pop()
                if found not in seen:
                    seen.add(found)
                    waiting.extend(table[found])
            assert any(found.final for found in seen)


def test_a_state_advances_only_as_the_table_says():
    for what, table in (("run", RUN_TRANSITIONS), ("task", TASK_TRANSITIONS)):
        for old in table:
            for new in table:
                if new in table[old]:
                    assert advance_state(old, new) is new
                else:
                    with pytest.raises(IllegalTransition, match=f"{what} .* from {old} to {new}"):
                        advance_state(old, new)
