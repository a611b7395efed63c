"""Words of Airflow that are others here: each keyword with what to write in its place."""

from collections.abc import Iterable, Mapping
from typing import Any

DAG_WORDS: Mapping[str, str] = {
    "schedule_interval": "schedule=",
    "timetable": "schedule=",
    "start_date": "start=",
    "end_date": "end=",
    "concurrency": "max_active_tasks=",
    "dagrun_timeout": "timeout=",
    "on_success_callback": "on_success=",
    "on_failure_callback": "on_failure=",
    "doc_md": "description=",
    "dag_display_name": "description=",
    "is_paused_upon_creation": "nothing, and pause it by `pubsubflow dags pause`",
    "sla_miss_callback": "deadlines=[Deadline(…)]",
    "access_control": "nothing: roles belong to tokens (`pubsubflow tokens create --role`)",
    "default_view": "nothing",
    "orientation": "nothing",
    "owner_links": "nothing",
    "auto_register": "nothing",
    "render_template_as_native_obj": "nothing: pass results as arguments, which keep their types",
    "retries": "default_args={'retries': …}",
}
TASK_WORDS: Mapping[str, str] = {
    "start_date": "start= of the DAG",
    "end_date": "end= of the DAG",
    "owner": "owner= of the DAG",
    "priority_weight": "priority=",
    "weight_rule": "nothing: priority= is the task's own",
    "retry_exponential_backoff": "retry_backoff=2",
    "max_active_tis_per_dag": "concurrency_key= with a name of its own, and concurrency_limit=",
    "task_concurrency": "concurrency_key= with a name of its own, and concurrency_limit=",
    "on_success_callback": "on_success=",
    "on_failure_callback": "on_failure=",
    "on_retry_callback": "on_retry=",
    "on_skipped_callback": "on_skipped=",
    "doc_md": "doc=",
    "sla": "DAG(deadlines=[Deadline(…)])",
    "email": "on_failure=notify.Email(…)",
    "email_on_failure": "on_failure=notify.Email(…)",
    "email_on_retry": "on_retry=notify.Email(…)",
    "provide_context": "nothing: a function with **context, or with ctx: Context, gets it",
    "ignore_first_depends_on_past": "nothing: the first run waits for none",
    "wait_for_past_depends_before_skipping": "nothing",
    "executor_config": "executor=",
    "poke_interval": "every=",
    "mode": "nothing: between two looks a sensor holds no slot",
    "exponential_backoff": "backoff=2",
    "max_wait": "max_every=",
    "silent_fail": "nothing: retries= says what follows an exception",
    "never_fail": "trigger_rule='all_done' on the tasks that follow",
    "run_as_user": "nothing: tasks run as the user of their worker",
    "xcom_push": "nothing: the last line that a command prints is its result",
    "do_xcom_push": "nothing: a function that returns None has no result",
}
HARMLESS = frozenset(
    {
        "email",
        "email_on_failure",
        "email_on_retry",
        "provide_context",
        "weight_rule",
        "ignore_first_depends_on_past",
        "wait_for_past_depends_before_skipping",
        "do_xcom_push",
    }
)
"""Words of `default_args` that may stay: they are left out, and `dags check` says so."""
DAG_DEFAULTS: Mapping[str, str] = {"owner": "owner", "start_date": "start", "end_date": "end"}
"""Words of `default_args` that mean keywords of the DAG here."""
SYNONYMS: Mapping[str, str] = {"execution_timeout": "timeout"}
"""Keywords of tasks that are understood as they are."""


def replacements(given: Iterable[str], words: Mapping[str, str]) -> str:
    """Return what to write in place of all the words that are others here; empty without any."""
    parts = [f"{words[each]} in place of {each}=" for each in given if each in words]
    return f"write {'; '.join(parts)}" if parts else ""


def spelled_here(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords of a task in the words of this project."""
    if SYNONYMS.keys().isdisjoint(given):
        return dict(given)
    return {SYNONYMS.get(name, name): value for name, value in given.items()}
