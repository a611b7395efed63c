"""Causal walks go step by step from a run or an event to what it led to, or what led to it.

A step is one statement a kind of arrow for all nodes of its level, so the number of statements
grows with the number of steps, not with that of nodes.
"""

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct, field

from pubsubflow.model.wire.commands import STARTED_BY_TASK
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.runs.runs import FoundRun, read_runs

MOST_NODES = 500
_LOOKED_AT = 10_000
_LOOKED_AT_FURTHER = 1000


class TaskFocus(NamedTuple):
    """A task of the run that a trace is about.

    Attributes:
        map_index: None for all instances.
    """

    node: int | None = None
    map_index: int | None = None
    cause: str = STARTED_BY_TASK


class _Level(NamedTuple):
    runs: list[int]
    events: list[int]


class CausalWalk(Struct):
    """The nodes that were found, by number, and how many steps away each is.

    Args:
        breadth: How many causes or effects of one node at most.
        skip: How many of those of the first node are left out.
        focus: The task to which effects are limited, in the first step.

    Attributes:
        runs, events: Number → steps; negative for causes.
        found: The runs themselves.
        consumed: Which event was consumed by which run.
        emitters: Event → the run that emitted it.
        gone: Ids of runs that started others and are removed.
        cut: Whether something was left out because there is too much.
    """

    breadth: int
    skip: int = 0
    focus: TaskFocus = TaskFocus()
    runs: dict[int, int] = field(default_factory=dict)
    events: dict[int, int] = field(default_factory=dict)
    found: dict[int, FoundRun] = field(default_factory=dict)
    consumed: set[tuple[int, int]] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    cut: bool = False

    async def forwards(self, connection: Connection, start: _Level, steps: int) -> None:
        """Follow effects: events that runs emitted, runs that they started or that consumed."""
        level, first = start, True
        for hops in range(1, steps + 1):
            # Only the first node is limited to a task, and looked at whole.
            skip, focus = (self.skip, self.focus) if first else (0, TaskFocus())
            looked_at = _LOOKED_AT if first else _LOOKED_AT_FURTHER
            emitted = await self._emitted(connection, level.runs, skip, focus)
            runs = await self._started(connection, level.runs, skip, focus)
            if level.events:
                rows = await connection.fetch(
                    SQL["list_consuming_runs"], level.events, skip, self.breadth, looked_at
                )
                self.consumed.update((row["event"], row["run"]) for row in rows)
                runs += [row["run"] for row in rows]
            level, first = self._add(runs, emitted, hops), False
            await self.read(connection, level.runs)
            if not any(level):
                return

    async def backwards(self, connection: Connection, start: _Level, steps: int) -> None:
        """Follow causes: events that runs consumed, runs that emitted these or started those."""
        level, first = start, True
        for hops in range(1, steps + 1):
            skip = self.skip if first else 0
            rows = []
            if level.runs:
                rows = await connection.fetch(
                    SQL["list_consumed_of_runs"], level.runs, skip, self.breadth
                )
                self.consumed.update((row["event"], row["run"]) for row in rows)
            runs = await self._emitters(connection, level.events)
            runs += await self._starters(connection, level.runs)
            level, first = self._add(runs, [row["event"] for row in rows], -hops), False
            await self.read(connection, level.runs)
            if not any(level):
                return

    async def read(self, connection: Connection, numbers: Iterable[int]) -> None:
        """Read runs; those that are removed stay out."""
        wanted = [number for number in numbers if number not in self.found]
        if wanted:
            for run in await read_runs(connection, wanted):
                self.found[run.number] = run

    def _add(self, runs: Iterable[int], events: Iterable[int], hops: int) -> _Level:
        """Add nodes that are new, as long as there is room; return them."""
        level = _Level([], [])
        for known, added, numbers in (
            (self.runs, level.runs, runs),
            (self.events, level.events, events),
        ):
            for number in numbers:
                # Found on another way, or in a circle: its own steps were taken there.
                if number in known:
                    continue
                if len(self.runs) + len(self.events) >= MOST_NODES:
                    self.cut = True
                    break
                known[number] = hops
                added.append(number)
        return level

    async def _emitted(
        self, connection: Connection, runs: list[int], skip: int, focus: TaskFocus
    ) -> list[int]:
        if not runs:
            return []
        rows = await connection.fetch(
            *(SQL["list_emitted_events"], runs, skip, self.breadth, focus.node, focus.map_index)
        )
        return [row["id"] for row in rows]

    async def _started(
        self, connection: Connection, runs: list[int], skip: int, focus: TaskFocus
    ) -> list[int]:
        if not runs:
            return []
        rows = await connection.fetch(
            SQL["list_started_runs"], self.ids(runs), runs, skip, self.breadth, focus.cause
        )
        return [row["run"] for row in rows]

    async def _emitters(self, connection: Connection, events: list[int]) -> list[int]:
        if not events:
            return []
        rows = await connection.fetch(SQL["read_traced_events"], events)
        # Without an id the run was removed, which the event itself says.
        return [row["run"] for row in rows if row["run_id"] is not None]

    async def _starters(self, connection: Connection, runs: list[int]) -> list[int]:
        wanted = sorted(
            {
                view.cause[-36:]
                for view in (self.found[run].view for run in runs if run in self.found)
                if view.kind == "manual" and view.cause.startswith(STARTED_BY_TASK)
            }
        )
        if not wanted:
            return []
        rows = await connection.fetch(SQL["read_run_numbers"], wanted)
        self.gone |= {*wanted} - {str(row["run_id"]) for row in rows}
        return [row["id"] for row in rows]

    def ids(self, runs: Iterable[int]) -> list[str]:
        """Return the public ids of runs that were read, as text."""
        return [self.found[run].view.run_id if run in self.found else "" for run in runs]


def level_of(*, run: int | None = None, event: int | None = None) -> _Level:
    """Return the level with the node at which a walk begins."""
    return _Level([] if run is None else [run], [] if event is None else [event])
