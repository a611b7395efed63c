"""Setup and teardown: tasks that make something for others, and clean it up whatever happens."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from msgspec.structs import replace

from pubsubflow.authoring.source_location import caller, definition_error
from pubsubflow.model.spec import TriggerRule


class ScopeBlock:
    """An open `with teardown:` block; to the graph it is a group without a name.

    Attributes:
        prefix, full_id, defaults: Empty: tasks inside keep their names and options.
        members: The tasks made inside.
        mapping: None: it is not mapped.
    """

    def __init__(self) -> None:
        self.mapping = None
        self.prefix = ""
        self.full_id = ""
        self.defaults: dict[str, Any] = {}
        self.members: list[Any] = []


class Scoped:
    """What a task, or the reference to its result, has as a setup or a teardown.

    `with teardown:` puts tasks between its setups and it: those inside that wait for none of them
    run after the setups, and the teardown after those that come last.
    """

    __slots__ = ()

    def leaves(self) -> Iterable[Any]:
        """Return the one node."""
        raise NotImplementedError

    def as_setup(self) -> Self:
        """Make the task a setup: tasks between it and its teardowns run only if it succeeds."""
        (node,) = self.leaves()
        node.role = "setup"
        return self

    def as_teardown(self, *, setups: Any = (), on_failure_fail_dagrun: bool = False) -> Self:
        """Make the task a teardown: it runs if a setup has succeeded, whatever else happened.

        Args:
            setups: The setups that it cleans up after, one or a list; they become setups.
            on_failure_fail_dagrun: Whether its failure fails the run.

        Raises:
            DefinitionError: A setup is not a task.
        """
        (node,) = self.leaves()
        become_teardown(node, fails_run=on_failure_fail_dagrun)
        location = caller()
        for setup in setups if isinstance(setups, list | tuple | set) else (setups,):
            if not isinstance(setup, Scoped):
                raise definition_error(
                    f"setups={setup!r} is not a task in a DAG", task_id=node.task_id
                )
            setup.as_setup()
            for before in setup.leaves():
                node.run_after(before, location)
        return self

    def __enter__(self) -> Self:
        """Begin the block of tasks that use what the setups make.

        Raises:
            DefinitionError: It is neither a setup nor a teardown.
        """
        (node,) = self.leaves()
        if node.role not in ("setup", "teardown"):
            raise definition_error(
                "only a setup or a teardown stands in `with`; make it one with "
                ".as_teardown(setups=…) or .as_setup()",
                task_id=node.task_id,
            )
        node.graph.groups.append(ScopeBlock())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the tasks of the block between the setups and the teardown."""
        (node,) = self.leaves()
        scope = node.graph.groups.pop()
        if error is None:
            _surround(node, scope.members)


def become_teardown(node: Any, *, fails_run: bool) -> None:
    """Make a node a teardown, with the rule of teardowns."""
    node.role = "teardown"
    node.fails_run = fails_run
    node.options = replace(node.options, trigger_rule=TriggerRule.ALL_DONE_SETUP_SUCCESS)


def _surround(end: Any, members: list[Any]) -> None:
    location = caller()
    inside = set(members)
    setups = [end] if end.role == "setup" else [s for s in end.upstream if s.role == "setup"]
    for member in members:
        if inside.isdisjoint(member.upstream) and member.role != "teardown":
            for setup in setups:
                member.run_after(setup, location)
    if end.role == "teardown":
        for leaf in last_tasks(members):
            end.run_after(leaf, location)


def last_tasks(members: list[Any]) -> list[Any]:
    """Return the tasks after which no other of them comes; teardowns do not count."""
    lasting = [node for node in members if node.role != "teardown"]
    before = {node for member in lasting for node in member.upstream}
    return [node for node in lasting if node not in before]
