"""Answers to the questions of attempts, from what our context offers a task."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio.to_thread
import msgspec

from pubsubflow.airflow.outside.questions import plain, question_of
from pubsubflow.airflow.protocol import Question
from pubsubflow.airflow.structure import AssetStructure
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.result_keys import ResultAddress
from pubsubflow.errors import ConfigError, NotFound
from pubsubflow.model.connections import AIRFLOW, Connection
from pubsubflow.model.wire.task_questions import SetVariable


class AttemptAnswers:
    """Answers one attempt.

    Args:
        ctx: The task's.
        assets: Dataset URI → the asset that its DAG names.
    """

    def __init__(self, ctx: Context, assets: Mapping[str, AssetStructure]) -> None:
        self._ctx = ctx
        self._assets = assets

    async def answer(self, question: Question) -> Any:
        """Answer a question; what blocks does so in a thread.

        Raises:
            Exception: It cannot be answered; the message says why.
        """
        if question.name == "start_run":
            return await self._start_run(question.arguments)
        handler = getattr(self, f"_{question.name}")
        return await anyio.to_thread.run_sync(handler, question.arguments)

    def _connection(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            return connection_fields(self._ctx.connection(arguments["name"]))
        except (ConfigError, NotFound):
            return None

    def _variable(self, arguments: Mapping[str, Any]) -> str | None:
        # Airflow's tasks read it anew each time: another task may have set it.
        self._ctx._data.forget_variable(arguments["name"])  # noqa: SLF001
        value = self._ctx.variable(arguments["name"], None)
        if value is None or isinstance(value, str):
            return value
        return msgspec.json.encode(value).decode()

    def _fact(self, arguments: Mapping[str, Any]) -> Any:
        """Answer what only managers know, or change what they keep."""
        fields = dict(arguments)
        kind = fields.pop("kind")
        question = question_of(kind, fields)
        answer = self._ctx._data.answer(question)  # noqa: SLF001 - as of XComs
        if isinstance(question, SetVariable):
            self._ctx._data.forget_variable(question.name)  # noqa: SLF001
        return plain(answer)

    def _xcom(self, arguments: Mapping[str, Any]) -> list[Any]:
        run = self._ctx.run
        own = (arguments["dag_id"], arguments["run_id"]) == (run.dag_id, run.run_id)
        address = ResultAddress(
            arguments["task_id"],
            arguments["key"],
            arguments["map_index"],
            None if own else arguments["run_id"],
            None if own else arguments["dag_id"],
        )
        # Airflow's tasks may read what any task has left, also one that is not before them.
        return self._ctx._data.left_values(address)  # noqa: SLF001

    def _asset(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Return an asset by one of its fields; one that the DAG does not name is what it says."""
        ((field, wanted),) = arguments.items()
        for each in self._assets.values():
            if each.kind == "asset" and getattr(each, field) == wanted:
                return {"name": each.name, "uri": each.uri}
        return {"name": wanted, "uri": wanted}

    def _previous_success(self, _: Mapping[str, Any]) -> dict[str, Any] | None:
        found = self._ctx.previous_success
        if found is None:
            return None
        return {"tick": found.logical_time, "start_date": found.started_at or found.created_at}

    async def _start_run(self, arguments: Mapping[str, Any]) -> str:
        given = arguments.get("logical_time")  # a text, as it comes from the other process
        return await self._ctx.start_run(
            arguments["dag_id"],
            params=arguments["conf"],
            logical_time=None if given is None else msgspec.convert(given, datetime),
            partition=arguments.get("partition"),
            run_key=arguments.get("run_key"),
        )


def connection_fields(found: Connection) -> dict[str, Any]:
    """Return a connection in the fields of Airflow's."""
    secrets = {name: each for name, each in found.secrets.items() if name != "password"}
    query = {} if found.uri is None else dict(parse_qsl(urlsplit(found.uri).query))
    extra = {**query, **found.extra, **secrets}
    own = extra.pop(AIRFLOW, {})
    return {
        "conn_id": found.name,
        "conn_type": found.kind,
        "host": None if found.host is None else unquote(found.host),
        "schema": found.path or None,
        "login": found.user,
        "password": found.password,
        "port": found.port,
        "extra": msgspec.json.encode(extra).decode() if extra else None,
        **own,
    }
