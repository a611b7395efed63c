"""Drawings of the state machines in docs/architecture.md, made from the transition tables.

    python tools/drawings.py    # writes them into the page

A drawing stands between `<!-- drawing: NAME -->` and `<!-- /drawing -->`; a test holds that the
page equals what this writes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pubsubflow.model.runs.states import RUN_TRANSITIONS, TASK_TRANSITIONS, RunState, TaskState

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"
_DRAWING = re.compile(r"(<!-- drawing: (\w+) -->\n).*?(<!-- /drawing -->)", re.DOTALL)

S = TypeVar("S", RunState, TaskState)


def state_machine(transitions: Mapping[S, frozenset[S]]) -> str:
    """Draw a transition table in Mermaid.

    The final states are one box, `ended`, and an arrow to it names those that it leads to: with an
    arrow for every pair the drawing cannot be read.
    """
    final = [state for state in transitions if state.final]
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR"]
    for old, following in transitions.items():
        if old in final:
            continue
        lines += [f"    {old} --> {new}" for new in transitions if new in following - set(final)]
        ends = [new for new in final if new in following]
        if ends:
            lines.append(f"    {old} --> ended: {', '.join(ends)}")
    reopened = {new for old in final for new in transitions[old]}
    lines += [f"    ended --> {new}: cleared" for new in transitions if new in reopened]
    if not reopened:
        lines.append("    ended --> [*]")
    return "\n".join([*lines, "```", ""])


def drawn(page: str) -> str:
    """Return a page with its drawings made anew."""
    drawings = {
        "runs": state_machine(RUN_TRANSITIONS),
        "tasks": state_machine(TASK_TRANSITIONS),
    }
    return _DRAWING.sub(lambda found: found[1] + drawings[found[2]] + found[3], page)


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
