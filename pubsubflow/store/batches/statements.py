"""Statements that write a batch: `write_batch` of `sql/manager.sql` without its empty parts.

A batch fills a few parts. The others would cost their arrays, and a plan to start each.
"""

import re
from collections.abc import Collection

from pubsubflow.store.named_queries import SQL

BATCH = {
    "events": 13,
    "runs": 13,
    "run_events": 3,
    "removed_tasks": 3,
    "ended_tasks": 14,
    "live_tasks": 11,
    "opened_runs": 6,
    "progressed_runs": 2,
    "closed_runs": 3,
    "pending": 4,
    "condition_states": 4,
    "dag_states": 5,
    "changes": 1,
    "audits": 7,
    "progress_chunks": 3,
    "claims": 2,
}
"""Parts of `write_batch`, in the order of its arguments: name → number of columns."""
SEVERAL = frozenset({"dag_states", "progress_chunks"})
"""Parts that one message may fill with several rows: its DAGs, chunks of its run's progress."""
REMEMBERED_ARGUMENTS = 11
"""How many arguments of `write_remembered` come before those of the parts."""
_EXPRESSION = re.compile(r"^(\w+) AS \(\n(.*?)^\)", flags=re.MULTILINE | re.DOTALL)
_SEVERAL = frozenset({"counted", "chunked"})  # their expressions
_PARAMETER = re.compile(r"\$(\d+)")
_COLUMNS = re.compile(r"\bunnest\(([^()]*)\)(\s+AS\s+\w+)?")
_ANY = re.compile(r"= ANY\((\$\d+::\w+)\[\]\)")
_LAST = "\n)\n"
_ONLY_REMEMBERED = "-- remembered: "
_EVENT = re.compile(r"\bn\.event\b")


def batch_statement(parts: Collection[str], *, single: bool = False) -> str:
    """Return the statement that writes some parts of a batch: `write_batch` without the others.

    Args:
        parts: Their names, of `BATCH`; their columns are its arguments, in the order of `BATCH`.
        single: Its arguments are the values of one row a part, as in a batch of one message, for
            which arrays cost both sides twice as much; columns for those of `SEVERAL`.
    """
    expressions = _expressions(parts, 1, single=single)
    last = SQL["write_batch"].splitlines()[-1]
    if "audits" not in parts:
        last = last.replace("id, ", "", 1).replace(" FROM audited ORDER BY id", "")
    return f"WITH\n{_listed(expressions)}\n{last}"


def remembered_statement(parts: Collection[str], *, single: bool = False) -> str:
    """Return `write_remembered` with parts of a batch.

    Args:
        parts: See `batch_statement`; their arguments come after those of `write_remembered`.
        single: Likewise.
    """
    whole = SQL["write_remembered"]
    expressions = dict(_EXPRESSION.findall(whole))
    for name, text in _expressions(parts, REMEMBERED_ARGUMENTS + 1, single=single).items():
        compared = text.replace(_ONLY_REMEMBERED, "").replace("@", "$")
        expressions[name] = _EVENT.sub("(SELECT ids FROM numbered)[n.event::int]", compared)
    return f"WITH\n{_listed(expressions)}\n{whole[whole.rindex(_LAST) + len(_LAST) :]}"


def _expressions(parts: Collection[str], first: int, *, single: bool) -> dict[str, str]:
    """Return name and text of the expressions of parts, with arguments numbered from `first`."""
    numbers: dict[str, str] = {}
    position = 1
    for name, width in BATCH.items():
        if name in parts:
            for number in range(position, position + width):
                numbers[str(number)] = f"${len(numbers) + first}"
        position += width

    def renumbered(text: str) -> str:
        return _PARAMETER.sub(lambda found: numbers[found[1]], text)

    # An expression belongs to the part whose arguments it takes.
    return {
        name: renumbered(_of_values(text) if single and name not in _SEVERAL else text)
        for name, text in _EXPRESSION.findall(SQL["write_batch"])
        if _PARAMETER.findall(text)[0] in numbers
    }


def _listed(expressions: dict[str, str]) -> str:
    return ",\n".join(f"{name} AS (\n{text})" for name, text in expressions.items())


def _of_values(expression: str) -> str:
    """Return an expression of `write_batch` for one row in place of columns."""

    def values(columns: re.Match[str]) -> str:
        return f"(VALUES ({columns[1].replace('[]', '')})){columns[2] or ' AS given'}"

    return _ANY.sub(r"= \1", _COLUMNS.sub(values, expression))
