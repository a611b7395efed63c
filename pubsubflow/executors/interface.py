"""Executors: the interface by which a plugin runs attempts of tasks elsewhere.

An executor starts a process that runs one attempt, and says how that ended. All else is the
process's own doing, over NATS: it fetches its order and its code, and publishes output and result
under the attempt's fence. So a restart of the worker that started it loses nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import msgspec
from msgspec import Struct

from pubsubflow.model.wire.task_resources import ResourcesSpec

DONE = 0
"""Exit code of a process that leaves nothing to do: its result is stored, or its order is void."""

NOT_BEGUN = 75
"""Exit code of a process that could not begin: another one may run the same attempt."""

BEGUN_FILE = "PUBSUBFLOW_BEGUN_FILE"
"""The variable that names a file in which the process writes `BEGUN` when the task begins."""

BEGUN = "begun"
"""What a process writes into the file that `BEGUN_FILE` names."""


class AttemptLabel(Struct, frozen=True):
    """The identity of an attempt, by which its process is found again.

    Attributes:
        run_id: UUID of the run.
        run: The run's number; with all that follows it is the attempt's fence.
        node: The task's number in its DAG.
        map_index: The task's map index; -1 for one that is not mapped.
        attempt: From 1; grows with every retry.
        delivery: Grows with every delivery of the task.
    """

    run_id: str
    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int

    @property
    def name(self) -> str:
        """A name of lower-case letters, digits and `-`, of at most 100 characters."""
        index = "" if self.map_index < 0 else str(self.map_index)
        run = self.run_id.replace("-", "")
        return f"{run}-{self.node}-{index}x{self.attempt}-{self.delivery}"

    def to_dict(self) -> dict[str, str]:
        """Return its fields as texts, for a system whose labels are texts."""
        return {key: str(value) for key, value in msgspec.structs.asdict(self).items()}

    @classmethod
    def from_dict(cls, texts: Mapping[str, str]) -> Self:
        """Return the label of the fields that `to_dict` gave; further keys are ignored.

        Raises:
            ValueError: A field is missing, or is not a number.
        """
        try:
            run_id, *numbers = (texts[name] for name in cls.__struct_fields__)
        except KeyError as error:
            raise ValueError(f"a label without {error}") from error
        return cls(run_id, *map(int, numbers))


class Attempt(Struct, frozen=True):
    """An attempt that is to be started.

    Attributes:
        label: Its identity.
        dag_id: Id of its DAG; `task_id` that of its task.
        arguments: What follows `python` on the command line of its process.
        environment: Variables that the process needs. They hold credentials of NATS: pass them as
            a secret.
        options: The task's, of the executor's type `Options`.
        resources: What the task declares, to be requested; the process keeps to them, too.
        timeout_seconds: The task's time limit, which the process keeps.
        again: Whether it may have been started before; otherwise there is none under its label.
    """

    label: AttemptLabel
    dag_id: str
    task_id: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    options: Any
    resources: ResourcesSpec | None = None
    timeout_seconds: float | None = None
    again: bool = False


class AttemptExit(Struct, frozen=True):
    """How the process of an attempt ended.

    Attributes:
        exit_code: Its exit code, negative for a signal; None where that is not known.
        reason: Why it ended, for people: `OOMKilled`, `the node was lost`; empty if the exit code
            says it all.
        begun: Whether the task may have begun. False if it surely has not: then the attempt is
            started again, a few times, and nothing is counted.
    """

    exit_code: int | None
    reason: str = ""
    begun: bool = True


class ResultKeeper(Struct, frozen=True):
    """What keeps large results with an executor, for the tasks of their run.

    Attributes:
        name: In references to them: the executor's name, a colon, and that of the installation.
        max_bytes: How many bytes an encoded result may have.
    """

    name: str
    max_bytes: int


class ExecutorOptions(Struct, frozen=True, kw_only=True):
    """Base class of the options of an executor, which tasks give as `executor=`.

    Fields are JSON values or structures of them, and have defaults. An option `result` with the
    executor's name keeps large results there, if it has a `ResultKeeper`; tasks of two `address`es
    share none.

    Attributes:
        executor: The name of the executor; each class sets it.
    """

    executor: ClassVar[str] = ""


class NoOptions(ExecutorOptions, frozen=True):
    """The options of an executor that has none."""


class NoSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of an executor that has none."""


class Executor(ABC):
    """Runs attempts in processes that outlive the worker; a plugin of `pubsubflow.executors`.

    One object lives as long as its worker, on its event loop: methods must not block. Workers on
    several machines may each have one; all see the same attempts, or each those of its machine.

    Args:
        settings: The section of the configuration, of the type `Settings`.

    Attributes:
        Options: The type of a task's options.
        Settings: The type of the section `[executors.NAME]`, without `slots` and `nats_url`.
        keeper: What keeps large results, for executors with hosts; None for nothing.
    """

    Options: ClassVar[type[ExecutorOptions]] = NoOptions
    Settings: ClassVar[type[Struct]] = NoSettings

    keeper: ResultKeeper | None = None

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    async def start(self, attempt: Attempt) -> None:
        """Start the process of an attempt, unless there is one under its label.

        It may be called again for an attempt that runs or has ended, after a restart of the worker
        or by another worker: then it does nothing.

        Raises:
            CannotStart: It cannot be started, now or ever.
        """

    @abstractmethod
    async def watch(self, label: AttemptLabel, report: Callable[[str], None]) -> AttemptExit:
        """Wait until the process of an attempt has ended; it may be cancelled, and called again.

        Args:
            label: Whose.
            report: Called with one line each time when what it waits for changes: `the image is
                being pulled`. People read it in the task's output.

        Raises:
            CannotStart: It will never start, although `start` has succeeded.
        """

    @abstractmethod
    async def stop(self, label: AttemptLabel, grace_seconds: float) -> None:
        """Order the process of an attempt to end: SIGTERM, then SIGKILL after the grace.

        It returns without waiting for that; `watch` says when it is done. Nothing happens where
        there is none.
        """

    @abstractmethod
    async def find(self) -> list[AttemptLabel]:
        """Return all attempts that run, or have ended and are not removed."""

    @abstractmethod
    async def read_output(self, label: AttemptLabel) -> str:
        """Return the last lines that the process of an attempt wrote, for people; at best."""

    @abstractmethod
    async def remove(self, label: AttemptLabel) -> None:
        """Remove what is left of an attempt that has ended; nothing happens if there is none."""

    async def find_results(self) -> list[str]:
        """Return the names of the results that are kept."""
        return []

    async def release_results(self, names: Sequence[str]) -> None:  # noqa: B027 - most keep none
        """Keep these results no longer: their runs have ended."""

    async def open(self) -> None:  # noqa: B027 - most have nothing to do
        """Get ready, once, before all else.

        Raises:
            ConfigError: The settings cannot work.
        """

    async def close(self) -> None:  # noqa: B027 - likewise
        """Give up connections; the attempts go on."""
