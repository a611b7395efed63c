"""Runs in the interpreter that has Airflow: prepares it as a host does, and says what that left.

It prints a line of JSON.
"""

import json
import os
import signal
import sys

from airflow.sdk import DAG, listener, plugins_manager
from airflow.sdk.execution_time import task_runner
from airflow.timetables.base import Timetable
from pydantic import JsonValue

from pubsubflow.airflow.inside.loading.core_timetables import core_timetable
from pubsubflow.airflow.inside.processes.learning import Learning
from pubsubflow.airflow.inside.processes.preparing import prepare_host
from pubsubflow.airflow.inside.processes.rehearsal import rehearse
from pubsubflow.runner.process_state import ProcessState


def main():
    prepare_host()
    state = ProcessState(alone=True)
    rehearse()
    table = DAG("one", schedule="@daily").timetable
    found = {
        "changes": state.changes(),
        "supervisor": hasattr(task_runner, "SUPERVISOR_COMMS"),
        "plugins": plugins_manager._get_plugins.cache_info().currsize,
        "macros": plugins_manager.integrate_macros_plugins.cache_info().currsize,
        "listeners": listener.get_listener_manager.cache_info().currsize,
        "sigterm": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "adapter": task_runner.TypeAdapter(JsonValue) is task_runner.TypeAdapter(JsonValue),
        "table": core_timetable(table) is core_timetable(table),
        "core": isinstance(core_timetable(table), Timetable),
        "learnt": _learnt(),
    }
    print(json.dumps(found))


def _learnt():
    """Return whether a module that a child imports is there afterwards."""
    learning = Learning()
    before = "tabnanny" in sys.modules
    child = os.fork()
    if child == 0:
        learning.begin()
        __import__("tabnanny")
        learning.end()
        os._exit(0)
    os.waitpid(child, 0)
    return not before and learning.learn() and "tabnanny" in sys.modules
