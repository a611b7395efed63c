"""Rehearsal: a host runs a task of ours to its end, so that processes are forked with warm code.

What the SDK makes in its first attempt (registries, regular expressions, parsers), and what the
interpreter learns of its functions, is then shared by all of them.
"""

import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from airflow import settings
from airflow.sdk import DAG, BaseOperator, listener, plugins_manager
from airflow.sdk.execution_time import task_runner

from pubsubflow.airflow.inside.attempt import run_attempt
from pubsubflow.airflow.inside.comms import AttemptQuestions
from pubsubflow.airflow.inside.processes.output import Output
from pubsubflow.airflow.protocol import AirflowOrder, decode_order, encode
from pubsubflow.runner.process_state import ProcessState, reseed

# The interpreter specialises code that has run a few times.
_TIMES = 4
_NAME = "pubsubflow_rehearsal"


class _Nothing(BaseOperator):  # type: ignore[misc]
    """Does nothing, with what most tasks have: a template, a line of output and a result."""

    template_fields = ("text",)

    def __init__(self, text: str, **given: Any) -> None:
        super().__init__(**given)
        self.text = text

    def execute(self, context: Any) -> Any:  # noqa: ARG002 - as it is called
        """Return the text."""
        self.log.info("rehearsed")
        return self.text


def rehearse() -> None:
    """Run a task of ours some times, without plugins, unless a policy of the team's would see it.

    Plugins are loaded in the processes of files, by the rules of these.
    """
    policy = getattr(settings.get_airflow_context_vars, "__module__", "")
    if not policy.startswith("airflow."):
        return
    state = ProcessState(alone=True)
    with Output().dropped(), _without_plugins():
        failure = _run()
    # As before: the SDK finds out by it whether there is a supervisor.
    vars(task_runner).pop("SUPERVISOR_COMMS", None)
    state.restore()
    reseed()
    if failure is not None:  # attempts do without it
        traceback.print_exception(failure)


@contextmanager
def _without_plugins() -> Iterator[None]:
    macros, listeners = (
        plugins_manager.integrate_macros_plugins,
        listener.integrate_listener_plugins,
    )
    plugins_manager.integrate_macros_plugins = lambda: None
    listener.integrate_listener_plugins = lambda _: None
    try:
        yield
    finally:
        plugins_manager.integrate_macros_plugins = macros
        listener.integrate_listener_plugins = listeners
        listener.get_listener_manager.cache_clear()


def _run() -> Exception | None:
    """Return why it could not be run to its end."""
    try:
        dag = DAG(_NAME, schedule=None, auto_register=False)
        _Nothing(text="{{ ds }}", task_id=_NAME, dag=dag)
        now = datetime.now(UTC)
        order = AirflowOrder(_NAME, _NAME, _NAME, "manual", now, now, 1, 0, str(uuid.UUID(int=0)))
        for _ in range(_TIMES):
            questions = AttemptQuestions(None)
            report = run_attempt(dag, decode_order(encode(order)), questions, legacy=True)
            encode(report)
    except Exception as error:  # noqa: BLE001 - said by the caller, when there is output again
        return error
    return None
