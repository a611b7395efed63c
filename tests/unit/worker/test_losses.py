"""What follows for each task of a process that died."""

import pytest

from pubsubflow.model.wire.messages import NO_NODE, Outcome
from pubsubflow.worker.assignment import AttemptOutcome
from pubsubflow.worker.processes.losses import RunAgain, judge_losses


class Held:
    """An assignment as far as the judgement reads it."""

    def __init__(self, position, *, after=NO_NODE, decided=None, losses=0):
        self.position = position
        self.after = after
        self.decided_outcome = decided
        self.losses = losses


def judged(*held, running=0, code=-11, killed=False):
    found = judge_losses(held, running=running, code=code, killed=killed, output="last words")
    return [then for _, then in found]


def test_who_was_alone_has_crashed():
    (only,) = judged(Held(1))
    assert (only.outcome, only.error.message, only.error.traceback) == (
        Outcome.CRASHED,
        "the runner process ended with SIGSEGV",
        "last words",
    )


@pytest.mark.parametrize(
    ("running", "killed", "apart"),
    [(2, False, [False, True]), (0, False, [True, True]), (0, True, [False, False])],
)
def test_suspects_begin_again_apart_and_the_others_together(running, killed, apart):
    found = judged(Held(1), Held(2), running=running, killed=killed)
    assert found == [RunAgain(apart=each) for each in apart]


def test_who_loses_two_processes_is_suspected():
    assert judged(Held(1, losses=1), Held(2), running=2)[0] == RunAgain(apart=True)


def test_what_the_worker_has_decided_stays_and_a_chained_task_is_lost():
    decided = AttemptOutcome(Outcome.CANCELLED)
    kept, lost, again = judged(Held(1, decided=decided), Held(2, after=0), Held(3), killed=True)
    assert (kept, lost.outcome, again) == (decided, Outcome.LOST, RunAgain(apart=False))
