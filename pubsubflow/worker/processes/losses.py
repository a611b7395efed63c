"""Losses: what follows for each assignment of a runner process that died."""

from collections.abc import Iterable

from msgspec import Struct

from pubsubflow.exit_codes import describe_exit
from pubsubflow.model.wire.messages import NO_NODE, Outcome, TaskError
from pubsubflow.worker.assignment import Assignment, AttemptOutcome

_MOST_LOSSES = 2


class RunAgain(Struct, frozen=True):
    """The attempt begins again, because another task's fault ended it.

    Attributes:
        apart: In a process of its own: it may have been its own fault.
    """

    apart: bool


def judge_losses(
    assignments: Iterable[Assignment], *, running: int, code: int, killed: bool, output: str
) -> list[tuple[Assignment, AttemptOutcome | RunAgain]]:
    """Return what follows for each assignment of a process that died.

    One that was alone has killed it. Of several, the one whose code ran is suspected, and without
    one all are, for a thread or C code may have done it: suspects begin again apart, where a second
    death is their own. Neither counts as an attempt.

    Args:
        assignments: All that were in the process.
        running: Position of the one whose code ran, 0 for none.
        code: The exit code of the process, negative for a signal.
        killed: Whether the worker killed it.
        output: What the process wrote last.
    """
    lost = list(assignments)
    death = f"the runner process ended with {describe_exit(code)}"
    others = f"{death} while other tasks ran in it"
    found: list[tuple[Assignment, AttemptOutcome | RunAgain]] = []
    for each in lost:
        if each.decided_outcome is not None:
            found.append((each, each.decided_outcome))
        elif len(lost) == 1 and not killed:
            crash = TaskError("Crashed", death, output)
            found.append((each, AttemptOutcome(Outcome.CRASHED, crash)))
        elif each.after != NO_NODE:
            # What the node before it returned was in the process: the manager has it as well.
            found.append((each, AttemptOutcome(Outcome.LOST, TaskError("Lost", others))))
        else:
            each.losses += 1
            suspected = each.position == running or not (running or killed)
            found.append((each, RunAgain(apart=suspected or each.losses >= _MOST_LOSSES)))
    return found
