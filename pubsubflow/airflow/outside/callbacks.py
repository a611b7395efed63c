"""Callbacks of Airflow's DAGs: the process that has the file calls them, with the run's facts."""

import os
import threading
from datetime import UTC, datetime
from typing import Any

import msgspec

from pubsubflow.airflow.outside.answers import connection_fields
from pubsubflow.airflow.outside.attempt import AttemptFailed, instance_id
from pubsubflow.airflow.outside.client import blocking_client, exchange_blocking
from pubsubflow.airflow.outside.lines import LogLines
from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.airflow.protocol import (
    RUN_TYPES,
    AirflowOrder,
    AttemptReport,
    ClientRequest,
    Question,
    encode,
)
from pubsubflow.authoring.runtime.callback_context import CallbackContext
from pubsubflow.errors import ConfigError, NotFound


class RunCallback:
    """Calls what a DAG of Airflow's has for the end of a run.

    Args:
        place: Of its file.
        kind: `on_success`, `on_failure`, or `deadline:` with the number of the deadline.
        task_id: The task whose context it gets when none has failed.
        name: What people know it by.
    """

    def __init__(self, place: BundlePlace, kind: str, task_id: str, name: str = "") -> None:
        self.__name__ = name or f"{kind}_callback"
        self._place = place
        self._kind = kind
        self._task_id = task_id

    def __call__(self, ctx: CallbackContext) -> None:
        """Call them, and write their output to that of the call.

        Raises:
            AttemptFailed: One of them raised something.
            HostUnreachable: The interpreter's process does not answer.
        """
        place = self._place
        request = ClientRequest(
            "attempt",
            place.folder,
            place.root,
            place.file,
            place.legacy,
            place.variables,
            encode(self._order(ctx)),
        )
        read, write = os.pipe()
        lines = threading.Thread(target=_write_lines, args=(read, LogLines(ctx.log)))
        lines.start()
        try:
            with blocking_client(place.address, request, write) as sock:
                os.close(write)
                write = -1
                found = exchange_blocking(sock, lambda question: _answer(ctx, question))
        finally:
            if write >= 0:
                os.close(write)
            lines.join()
        if isinstance(found, AttemptReport) and found.state != "success":
            raise AttemptFailed(f"{found.error_type}: {found.error_message}")

    def _order(self, ctx: CallbackContext) -> AirflowOrder:
        run = ctx.run
        if run is None:
            raise TypeError("a callback of a DAG is about a run")
        failed = ctx.failed[0] if ctx.failed else None
        task_id = self._task_id if failed is None else failed.task_id
        index = -1 if failed is None else failed.map_index
        params = run.params if isinstance(run.params, dict) else msgspec.to_builtins(run.params)
        return AirflowOrder(
            dag_id=run.dag_id,
            task_id=task_id,
            run_id=run.run_id,
            run_type=RUN_TYPES.get(run.kind, "manual"),
            run_after=run.created_at,
            started_at=datetime.now(UTC),
            attempt=1 if failed is None else failed.attempt,
            max_tries=0,
            ti_id=instance_id(run.run_id, task_id, index),
            tick=run.logical_time,
            conf=dict(params),
            partition=run.partition,
            map_index=index,
            callback=self._kind,
            reason=ctx.error or ("task_failure" if failed else "success"),
        )


def _write_lines(read: int, lines: LogLines) -> None:
    with os.fdopen(read, errors="replace") as stream:
        for line in stream:
            lines.write(line.rstrip("\n"))


def _answer(ctx: CallbackContext, question: Question) -> Any:
    """Answer with connections and variables; a callback has nothing else of the run."""
    name = question.arguments.get("name", "")
    if question.name == "connection":
        try:
            return connection_fields(ctx.connection(name))
        except (ConfigError, NotFound):
            return None
    if question.name == "variable":
        value = ctx.variable(name, None)
        plain = value is None or isinstance(value, str)
        return value if plain else msgspec.json.encode(value).decode()
    if question.name == "xcom":
        return []
    if question.name == "previous_success":
        return None
    what = question.arguments.get("kind", question.name)
    raise ConfigError(
        f"a callback of a DAG has no answer to this ({what}): do it in a task of the DAG"
    )
