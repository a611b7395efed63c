"""Runs in the interpreter that has Airflow: imports every row of the table of old names.

It prints a line of JSON: `module.name` → `ok`, or the error.
"""

import ast
import json
from datetime import UTC, datetime, timedelta
from typing import get_args

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.execution_time import comms as messages
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from pubsubflow.airflow.inside import comms
from pubsubflow.airflow.inside.legacy import keywords, table
from pubsubflow.airflow.inside.legacy.context import add_old_names, install_old_attributes
from pubsubflow.airflow.inside.legacy.rewrite import rewrite
from pubsubflow.airflow.inside.loading.notes import NoteBook


def main():
    notes = NoteBook(["/"])
    found = {}
    for row in table.rows():
        name = row.name if row.name != "*" else _a_name_of(row)
        found[f"{row.module}.{row.name}"] = _outcome(f"from {row.module} import {name}", notes)
    keywords.install_keywords(notes)
    found |= dict(_keywords())
    context = dict(_context())
    print(json.dumps({"names": found, "context": context, "messages": dict(_messages())}))


def _messages():
    """Yield each message that this release's SDK may send, and what becomes of it."""
    for name in sorted(_members(messages.ToSupervisor)):
        handled = name in comms.AttemptQuestions._handlers
        refused = name in comms.REFUSED
        by_wire = name in comms.OF_WIRE
        yield name, [handled, refused, by_wire].count(True)


def _members(union):
    for each in get_args(union):
        if isinstance(each, type):
            yield each.__name__
        else:
            yield from _members(each)


def _a_name_of(row):
    """Return a name that is in the module of today."""
    if row.remedy:
        return "Anything"
    try:
        module = __import__(row.new_module, fromlist=["_"])
    except ImportError:
        return "Anything"
    return next(name for name in vars(module) if not name.startswith("_"))


def _outcome(text, notes):
    try:
        tree = rewrite(ast.parse(text), "/row.py", notes)
        exec(compile(tree, "/row.py", "exec"), {})
    except Exception as error:  # noqa: BLE001 - the outcome is the error
        return f"{type(error).__name__}: {error}"
    return "ok"


def _keywords():
    values = {
        "schedule_interval": "@daily",
        "timetable": None,
        "concurrency": 3,
        "fail_stop": True,
        "sla": timedelta(hours=1),
        "task_concurrency": 2,
        "xcom_push": True,
    }
    for name in keywords.DAG_KEYWORDS:
        given = {name: values.get(name), "start_date": datetime(2025, 1, 1, tzinfo=UTC)}
        with DAG(f"dag_{name}", **given) as dag:  # noqa: AIR002 - by its old name
            new = keywords.DAG_KEYWORDS[name].new
            yield f"DAG {name}", "ok" if not new or hasattr(dag, new) else "lost"
    with DAG("operators", schedule=None):
        for name, each in keywords.OPERATOR_KEYWORDS.items():
            task = EmptyOperator(task_id=name, **{name: values.get(name, True)})
            kept = each.new is None or getattr(task, each.new) == values.get(name, True)
            yield f"operator {name}", "ok" if kept else "lost"


def _context():
    """Yield what a task of 2.x reads, for a run of a day."""
    day = datetime(2025, 3, 4, tzinfo=UTC)
    context = {"logical_date": day, "data_interval_start": day}
    context["data_interval_end"] = day + timedelta(days=1)
    given = set(context)
    add_old_names(context)
    yield from ((name, str(value)) for name, value in context.items() if name not in given)
    without = {"logical_date": None, "dag_run": 1}
    add_old_names(without)
    yield "without", sorted(without)

    pulled = []
    stored = {("first", "rows"): 3, ("other", "rows"): 4}

    def pull(self, task_ids=None, dag_id=None, key="return_value", **more):
        pulled.append(task_ids)
        return stored.get((task_ids, key))

    RuntimeTaskInstance.xcom_pull = pull
    install_old_attributes()
    with DAG("pulls", schedule=None):
        first, second, last, other = (
            EmptyOperator(task_id=name) for name in ("first", "second", "last", "other")
        )
        first >> second >> last
        assert other
    instance = RuntimeTaskInstance.model_construct(task=last)
    yield (
        "pulled",
        [instance.xcom_pull(key="rows"), pulled[:], instance.xcom_pull("other", key="rows")],
    )


if __name__ == "__main__":
    main()
