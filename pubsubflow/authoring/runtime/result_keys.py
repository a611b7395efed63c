"""Results by key: the methods of a task's context that push and pull them."""

from typing import Any, Final, Protocol

from msgspec import Struct

from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.model.wire.worker_requests import RETURN_VALUE

MAX_KEY_CHARACTERS = 250


class _NoDefault:
    """The type of `NO_DEFAULT`."""

    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT: Final[Any] = _NoDefault()
"""Stands for a default that was not given, as None is one."""


class ResultAddress(Struct, frozen=True):
    """Where a result by key is.

    Attributes:
        map_index: One instance of a mapped task; None for all.
        run_id: The run; the task's own when this and `dag_id` are None.
        dag_id: The DAG of the run; without `run_id` its last run that succeeded.
    """

    task_id: str
    key: str = RETURN_VALUE
    map_index: int | None = None
    run_id: str | None = None
    dag_id: str | None = None


class ResultSource(Protocol):
    """Results of other tasks."""

    def result(self, task_id: str) -> Any:
        """Return the result of an upstream task."""

    def pull(self, address: ResultAddress, default: Any = NO_DEFAULT) -> Any:
        """Return what a task has left under a key."""

    def left_values(self, address: ResultAddress) -> list[Any]:
        """Return what the instances of any task have left under a key, in order of their index."""


class PushedResults:
    """The values that one attempt has pushed, encoded."""

    def __init__(self, most_bytes: int) -> None:
        self.encoded: dict[str, bytes] = {}
        self._most_bytes = most_bytes
        self._bytes = 0

    def put(self, key: str, value: Any) -> None:
        """Push a value in place of what was pushed under the key before.

        Raises:
            DefinitionError: The key or the value cannot be.
        """
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise definition_error(
                f"a key must be a string of 1 to {MAX_KEY_CHARACTERS} characters, not {key!r}"
            )
        if key == RETURN_VALUE:
            raise definition_error(f"the key {key!r} is for what the task returns: return it")
        try:
            data = results.encode(value, self._most_bytes)[0] or results.NONE
        except results.UnsupportedResult as error:
            raise definition_error(f"ctx.push({key!r}): {error}") from error
        self._bytes += len(data) - len(self.encoded.get(key, b""))
        if self._bytes > self._most_bytes:
            raise definition_error(
                f"ctx.push({key!r}): what this task has pushed has {self._bytes:,} bytes and "
                f"{self._most_bytes:,} fit; write it to storage and push where it is"
            )
        self.encoded[key] = data


class ResultMethods:
    """Results of this task and of others, by key."""

    _data: ResultSource
    _pushed: PushedResults | None = None
    most_pushed_bytes: int = results.MAX_RESULT_BYTES

    @property
    def pushed(self) -> dict[str, bytes]:
        """Key → encoded value of what this attempt has pushed."""
        return {} if self._pushed is None else self._pushed.encoded

    def push(self, key: str, value: Any) -> None:
        """Leave a value under a key, for `ctx.pull` of other tasks.

        It is stored with the end of the attempt: exactly once, and also when the task fails for
        good or is skipped. An attempt that another one follows leaves nothing.

        Args:
            key: Any text but `return_value`, which is what the task returns.
            value: As a result may be; None is a value, too.

        Raises:
            DefinitionError: The key or the value cannot be, or all values have more than 1 MiB, or
                more than the result store takes, if there is one.
        """
        self._refuse_in_step("push")
        if self._pushed is None:
            self._pushed = PushedResults(self.most_pushed_bytes)
        self._pushed.put(key, value)

    def pull(
        self,
        task_id: str,
        key: str = RETURN_VALUE,
        map_index: int | None = None,
        run_id: str | None = None,
        dag_id: str | None = None,
        *,
        default: Any = NO_DEFAULT,
    ) -> Any:
        """Return what a task has pushed, or what it returned, under a key.

        A key of a returned dict counts as a key of the task.

        Args:
            task_id: The task; in this run one that is upstream.
            key: `return_value` for what it returned.
            map_index: One instance of a mapped task; the list over all when left out.
            run_id: Another run's.
            dag_id: Of another DAG: without `run_id` of its last run that succeeded.
            default: Returned when there is nothing.

        Raises:
            DefinitionError: A task of this run is not upstream of this one.
            ResultNotFound: There is nothing under the key, and no default.
            Unavailable: No manager answers.
        """
        return self._data.pull(ResultAddress(task_id, key, map_index, run_id, dag_id), default)

    def result(self, task_id: str) -> Any:
        """Return the result of an upstream task.

        Raises:
            DefinitionError: It is not upstream of this task.
        """
        return self._data.result(task_id)

    def _refuse_in_step(self, method: str) -> None:
        raise NotImplementedError
