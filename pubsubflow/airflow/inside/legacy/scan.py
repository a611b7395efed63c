"""Uses in a file that only show when a task runs: old names of the context, the database."""

import ast
import re
from collections.abc import Iterator

from pubsubflow.airflow.inside.loading.notes import NoteBook

OLD_CONTEXT = {
    "conf": "from airflow.sdk.configuration import conf",
    "execution_date": "logical_date",
    "latest_date": "ds",
    "next_ds": "data_interval_end | ds",
    "next_ds_nodash": "data_interval_end | ds_nodash",
    "next_execution_date": "data_interval_end",
    "prev_ds": "prev_data_interval_start_success | ds",
    "prev_ds_nodash": "prev_data_interval_start_success | ds_nodash",
    "prev_execution_date": "prev_data_interval_start_success",
    "prev_execution_date_success": "prev_data_interval_start_success",
    "tomorrow_ds": "macros.ds_add(ds, 1)",
    "tomorrow_ds_nodash": "macros.ds_add(ds, 1).replace('-', '')",
    "triggering_dataset_events": "triggering_asset_events",
    "yesterday_ds": "macros.ds_add(ds, -1)",
    "yesterday_ds_nodash": "macros.ds_add(ds, -1).replace('-', '')",
}
"""Names that a task's context has lost, and those of today."""

_CONTEXTS = frozenset({"context", "kwargs", "ctx"})
_OTHERS = frozenset({"ds", "ti", "task_instance", "dag_run", "ts", "logical_date", "run_id"})
_TEMPLATE = re.compile(r"\{[{%].*?[}%]\}", re.DOTALL)
_WORD = re.compile(r"(?<![\w.\"'])(" + "|".join(OLD_CONTEXT) + r")\b")

DATABASE_CALLS = {
    "DagRun": 'context["dag_run"], or ti.get_dr_count(dag_id=...), ti.get_dagrun_state(...)',
    "TaskInstance": "ti.get_task_states(dag_id=...), ti.get_ti_count(dag_id=...)",
    "XCom": "ti.xcom_pull(task_ids=...), ti.xcom_push(key=..., value=...)",
    "BaseXCom": "ti.xcom_pull(task_ids=...), ti.xcom_push(key=..., value=...)",
    "DagModel": "pubsubflow's REST API: GET /api/v1/dags",
    "DagBag": "pubsubflow's REST API: GET /api/v1/dags",
    "Pool": "pubsubflow's REST API: GET /api/v1/pools",
    "Log": "pubsubflow's REST API: GET /api/v1/audit",
}
"""Models of Airflow's database, and the calls of the SDK that answer without it."""

_SESSION = "variables, connections, XComs and states by airflow.sdk; else pubsubflow's REST API"
_SESSIONS = frozenset({"create_session", "Session", "NonScopedSession", "provide_session"})
_QUERIES = re.compile(r"find\w*|get_(?!connection|hook|template)\w+|clear\w*|delete\w*|set\w*")
_SESSION_MODULES = ("airflow.settings", "airflow.utils.session", "airflow.utils.db")


def scan(tree: ast.Module, file: str, notes: NoteBook) -> None:
    """Note the uses in a module that only show when a task runs.

    Args:
        tree: The module as it is written.
        file: Its path.
        notes: Gets a note for each use.
    """
    imported = _imported(tree)
    ignored = _docstrings(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for name in _context_names(node, ignored):
            notes.add(file, line, name, OLD_CONTEXT[name])
        if _pulls_from_any_task(node):
            use = "xcom_pull(key=...) without task_ids"
            notes.add(file, line, use, "xcom_pull(task_ids=..., key=...)", "changed")
        for use, today in _database_uses(node, imported):
            notes.add(file, line, use, today, "fails")


def _context_names(node: ast.AST, ignored: set[int]) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in ignored:
        for template in _TEMPLATE.findall(node.value):
            yield from _WORD.findall(template)
    elif isinstance(node, ast.Subscript):
        yield from _key_of_context(node.value, node.slice)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "get" and node.args:
            yield from _key_of_context(node.func.value, node.args[0])
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        names = {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
        if node.args.kwarg is not None or names & _OTHERS:
            yield from sorted(names & OLD_CONTEXT.keys() - {"conf"})


def _key_of_context(context: ast.expr, key: ast.expr) -> Iterator[str]:
    # By the usual names of the variable: any other mapping may have such a key.
    if isinstance(context, ast.Name) and context.id in _CONTEXTS and isinstance(key, ast.Constant):
        name = key.value
        if isinstance(name, str) and name in OLD_CONTEXT:
            yield name


def _docstrings(tree: ast.Module) -> set[int]:
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def _pulls_from_any_task(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    given = {each.arg for each in node.keywords}
    # None stands for `**something`, which may hold them.
    return (
        node.func.attr == "xcom_pull"
        and not node.args
        and "key" in given
        and not given & {"task_ids", "dag_id", None}
    )


def _imported(tree: ast.Module) -> dict[str, str]:
    """Return local name → the whole name of what is imported from Airflow."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("airflow"):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _database_uses(node: ast.AST, imported: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each use of the database, and the call that takes its place."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for each in node.decorator_list:
            if isinstance(each, ast.Name) and _is_session(each.id, imported):
                yield f"@{each.id}", _SESSION
    elif isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Name) and _is_session(function.id, imported):
            yield f"{function.id}()", _SESSION
        elif isinstance(function, ast.Name) and _model(function.id, imported) == "DagBag":
            yield f"{function.id}()", DATABASE_CALLS["DagBag"]
        elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            owner = function.value.id
            model = _model(owner, imported)
            if imported.get(owner) == "airflow.settings" and function.attr in _SESSIONS:
                yield f"{owner}.{function.attr}()", _SESSION
            elif model in DATABASE_CALLS and _QUERIES.fullmatch(function.attr):
                yield f"{owner}.{function.attr}()", DATABASE_CALLS[model]


def _is_session(name: str, imported: dict[str, str]) -> bool:
    module, _, original = imported.get(name, "").rpartition(".")
    return original in _SESSIONS and module in _SESSION_MODULES


def _model(name: str, imported: dict[str, str]) -> str:
    module, _, original = imported.get(name, "").rpartition(".")
    return original if module.startswith("airflow.models") else ""
