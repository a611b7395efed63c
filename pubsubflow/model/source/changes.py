"""The changes of a version of a DAG, as they are shown."""

from msgspec import Struct


class TaskChange(Struct, frozen=True):
    """A task that two versions have, and that differs.

    Attributes:
        fields: What differs of it, as the definition of tasks names it.
    """

    task_id: str
    fields: list[str]


class VersionChanges(Struct, frozen=True):
    """What a version changed.

    Attributes:
        added, removed: Ids of tasks.
        changed: Tasks that differ.
        schedule: Whether the schedule differs, or since when it counts.
        code: Whether the content of a file that the import reads differs.
        options: The options of the DAG that differ.
    """

    added: list[str] = []
    removed: list[str] = []
    changed: list[TaskChange] = []
    schedule: bool = False
    code: bool = False
    options: list[str] = []
