"""Questions of tasks under their fence: answers, and what changes at once."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import structlog
from msgspec import Struct

from pubsubflow.errors import InvalidInput, LeaseLost, NotFound
from pubsubflow.model.values.variables import check_name, make_variable, parse_value
from pubsubflow.model.wire.commands import ClearTasks
from pubsubflow.model.wire.executor_spec import BUNDLE, split_queue
from pubsubflow.model.wire.messages import decode_run_info, encode
from pubsubflow.model.wire.task_questions import (
    MOST_EARLY_BYTES,
    ChangeState,
    ClearRun,
    KeptValue,
    LeaveValue,
    ReadVariable,
    SetVariable,
)
from pubsubflow.model.wire.worker_requests import TaskQuestionRequest
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.questions.answers import TaskQuestionQueries
from pubsubflow.store.read.worker_requests import check_fence
from pubsubflow.store.secrets.variables import Variables
from pubsubflow.store.specs import SpecReader

log = structlog.get_logger(__name__)


class TaskOfBundle(Struct, frozen=True):
    """A task of a bundle of Airflow's files."""

    dag_id: str
    task_id: str
    bundle: str


class TaskQuestions:
    """Answers tasks of Airflow's files, and makes the changes that they request.

    Args:
        database: Postgres.
        variables: The variables; there are none if left out.
        announce: Called with the name of a variable that has changed.
        execute: Carries out a command; tasks clear no runs if left out.
    """

    def __init__(
        self,
        database: Database,
        variables: Variables | None = None,
        announce: Callable[[str], None] | None = None,
        execute: Callable[[ClearTasks], Awaitable[Any]] | None = None,
    ) -> None:
        self._execute = execute
        self._database = database
        self._variables = variables
        self._announce = announce
        self._queries = TaskQuestionQueries(database, variables)
        self._specs = SpecReader()

    async def answer(self, request: TaskQuestionRequest) -> bytes | None:
        """Return the encoded answer; None while the row of the task is still to come.

        Raises:
            LeaseLost: The fence is void: the task runs elsewhere, or has ended.
            InvalidInput: It is not of such a task, or what it sets cannot be.
        """
        question = request.question
        if isinstance(question, ReadVariable):
            # What comes back to a task is masked in its output by another request.
            raise InvalidInput("a task requests a variable by its own request")
        if isinstance(question, LeaveValue | ChangeState):
            found: list[bytes | None] = [None]

            async def change(connection: Connection) -> None:
                # Assigned, not appended: the transaction may start over.
                found[0] = await self._changed(request, question, connection)

            await self._database.in_transaction(change)
            return found[0]
        async with self._database.transaction() as connection:
            if not await check_fence(request, connection):
                return None
            task = await self._task(request, connection)
        if isinstance(question, SetVariable):
            return encode(await self._set_variable(question, task))
        if isinstance(question, ClearRun):
            await self._clear(question)
            return encode(True)  # noqa: FBT003 - the answer
        return encode(await self._queries.answer(question))

    async def _task(self, request: TaskQuestionRequest, connection: Connection) -> TaskOfBundle:
        row = await connection.fetchrow(SQL["find_asking_task"], request.run)
        if row is None:
            raise LeaseLost("the run has ended")
        spec = (await self._specs.load(connection, [row["version"]]))[row["version"]]
        task = spec.tasks[request.node]
        executor = split_queue(task.queue)[1]
        if not executor.startswith(BUNDLE):
            raise InvalidInput("such questions are those of Airflow's tasks")
        dag_id = decode_run_info(row["info"]).dag_id
        return TaskOfBundle(dag_id, task.task_id, executor.removeprefix(BUNDLE))

    async def _changed(
        self,
        request: TaskQuestionRequest,
        question: LeaveValue | ChangeState,
        connection: Connection,
    ) -> bytes | None:
        if not await check_fence(request, connection):
            return None
        await self._task(request, connection)
        address = (request.run, request.node, request.map_index)
        if isinstance(question, LeaveValue):
            await _leave(connection, address, request.attempt, question)
            return encode(None)
        if question.uri is not None:
            return encode(await _of_dataset(connection, question.uri, question))
        return encode(await _of_task(connection, address, request.attempt, question))

    async def _clear(self, question: ClearRun) -> None:
        if self._execute is None:
            raise InvalidInput("the manager clears no runs")
        command = ClearTasks(UUID(question.run_id), cleared=question.clear_number)
        try:
            await self._execute(command)
        except InvalidInput:
            async with self._database.connection() as connection:
                number = await connection.fetchval(SQL["read_clear_number"], command.run_id)
            # A repeated request finds that it is done.
            if number is None or number <= question.clear_number:
                raise
        except NotFound as error:
            raise InvalidInput(str(error)) from error

    async def _set_variable(self, question: SetVariable, task: TaskOfBundle) -> bool:
        if self._variables is None:
            raise InvalidInput("the manager has no variables")
        name = check_name(question.name)
        try:
            before = await self._variables.view(name)
        except NotFound:
            before = None
        if question.value is None:
            if before is None:
                return False
            await self._variables.delete(name)
        else:
            secret = True if before is not None and before.secret else None
            made = make_variable(
                name, _value(question.value), secret=secret, description=question.description
            )
            await self._variables.save(made)
        by = {"dag_id": task.dag_id, "task_id": task.task_id}
        log.info("variable.changed_by_task", name=name, deleted=question.value is None, **by)
        if self._announce is not None:
            self._announce(name)
        return before is not None


def _value(text: str) -> Any:
    """Return a text, or the list or object whose JSON it is: native tasks read that."""
    return parse_value(text) if text.lstrip().startswith(("{", "[")) else text


async def _leave(
    connection: Connection, address: tuple[int, int, int], attempt: int, question: LeaveValue
) -> None:
    if question.value is None:
        await connection.execute(SQL["take_value_away"], *address, question.key)
    elif len(question.value) <= MOST_EARLY_BYTES:
        await connection.execute(
            SQL["leave_value"], *address, question.key, attempt, question.value
        )


async def _of_dataset(connection: Connection, uri: str, question: ChangeState) -> KeptValue | None:
    if question.operation == "get":
        found = await connection.fetchval(SQL["read_dataset_value"], uri, question.key)
        return None if found is None else KeptValue(found)
    if question.operation == "set":
        value = question.value or "null"
        await connection.execute(SQL["keep_dataset_value"], uri, question.key, value)
        return None
    key = None if question.operation == "clear" else question.key
    await connection.execute(SQL["remove_dataset_values"], uri, key)
    return None


async def _of_task(
    connection: Connection, address: tuple[int, int, int], attempt: int, question: ChangeState
) -> KeptValue | None:
    if question.operation == "get":
        found = await connection.fetchval(SQL["read_kept_task_value"], *address, question.key)
        return None if found is None else KeptValue(found)
    if question.operation == "set":
        value = (question.value or "null").encode()
        await connection.execute(
            SQL["keep_task_value"], *address, question.key, attempt, value, question.expires_at
        )
        return None
    key = None if question.operation == "clear" else question.key
    await connection.execute(SQL["remove_task_values"], *address, key)
    return None
