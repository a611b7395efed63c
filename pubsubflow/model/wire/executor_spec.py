"""Executor specs: where an attempt runs, in stored definitions and in orders, and its queue."""

from typing import Any

from msgspec import Struct

LOCAL = "local"
"""The executor of workers themselves: their runner processes."""

BUNDLE = "airflow-"
"""Begins the name of what runs the tasks of a bundle of Airflow's files: processes of workers, but
of those alone that know the bundle."""

_SEPARATOR = "@"


class ExecutorSpec(Struct, frozen=True, omit_defaults=True):
    """The executor that a task names.

    Attributes:
        name: `local`, or that of a plugin.
        options: Fields of the executor's options that differ from their defaults, JSON values.
    """

    name: str
    options: dict[str, Any] = {}

    @property
    def keeps_results(self) -> bool:
        """Whether large results of the task stay with its executor while the run lasts."""
        return bool(self.options.get("result") == self.name)

    def shares_results(self, other: "ExecutorSpec | None") -> bool:
        """Return whether a task of another executor takes them from there, too."""
        return (
            other is not None
            and self.name == other.name
            and self.keeps_results
            and other.keeps_results
            # An executor of several systems has tasks name theirs by this option.
            and self.options.get("address") == other.options.get("address")
        )


def executor_queue(queue: str, executor: ExecutorSpec | None) -> str:
    """Return the queue of a task: that of another executor is served by workers that offer it."""
    if executor is None or executor.name == LOCAL:
        return queue
    return f"{queue}{_SEPARATOR}{executor.name}"


def bundle_queue(queue: str, bundle: str) -> str:
    """Return the queue of a task of a bundle of Airflow's files: workers that know it serve it."""
    return f"{queue}{_SEPARATOR}{BUNDLE}{bundle}"


def has_own_slots(executor: str) -> bool:
    """Return whether an executor is not the processes of workers themselves."""
    return executor != LOCAL and not executor.startswith(BUNDLE)


def split_queue(queue: str) -> tuple[str, str]:
    """Return a queue as workers name it, and its executor; `local` for none."""
    name, _, executor = queue.partition(_SEPARATOR)
    return name, executor or LOCAL
