"""Player of a scenario: the manager decides, on a real Postgres and the scenario's clock.

Tasks do not run: each succeeds as soon as it is ordered, or after the time that the scenario says.
"""

import heapq
import itertools
import random
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from pubsubflow import DAG, Dataset
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.schedule.conditions import inputs, ticks
from pubsubflow.model.schedule.partitions import RollUp, keys_of
from pubsubflow.model.wire.commands import (
    Backfill,
    FireTimers,
    RecordEvents,
    RedriveDeadLetter,
    Replay,
    SetPaused,
    StartRun,
)
from pubsubflow.model.wire.messages import NewEvent, Outcome, ResultMessage, TaskMessage
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.database import Database
from pubsubflow.store.read.event_outcomes import read_event_outcomes
from pubsubflow.store.read.timers import Timers
from pubsubflow.store.read.why_not import ReadWhyNot
from pubsubflow.store.specs import SpecReader
from support.harness import commit_batch, fence_of
from support.specs import loaded
from support.timelines.drawing import Run, Timeline
from support.timelines.page import LABEL, Scenario, Step

ZONE = "Europe/Warsaw"
YOU, TICKS = "you", "time"
LATE = "the missing inputs are late"
RUNS = """
SELECT run.id, dag.dag_id, run.run_id, run.kind, run.state, run.cause, run.partition, run.params,
       run.logical_time, run_live.run IS NOT NULL AS live
FROM run JOIN dag ON dag.id = run.dag LEFT JOIN run_live ON run_live.run = run.id
ORDER BY run.id
"""
EVENTS = """
SELECT event.id, event.event_id, event.run, dataset.uri
FROM event JOIN dataset ON dataset.id = event.dataset
ORDER BY event.id
"""
CONSUMED = "SELECT DISTINCT run, event FROM run_event ORDER BY run, event"


class Player:
    """Plays one scenario with the names that an example's code defines."""

    def __init__(self, database: Database, names: Mapping[str, Any], scenario: Scenario) -> None:
        self.now = scenario.begins
        self._database = database
        self._scenario = scenario
        self._dags = {each.dag_id: each for each in names.values() if isinstance(each, DAG)}
        self._datasets = {
            name: each.uri for name, each in names.items() if isinstance(each, Dataset)
        } | {name: Dataset(uri).uri for name, uri in scenario.datasets.items()}
        self._processor = BatchProcessor(
            now=lambda: self.now, chance=random.Random(1).random, max_loops=scenario.limit
        )
        self._timeline = Timeline()
        self._labels: dict[UUID, str] = {}
        self._since: dict[int, list[datetime | None]] = {}
        self._ends: list[tuple[datetime, int, TaskMessage]] = []
        self._order = itertools.count()

    async def play(self) -> Timeline:
        """Carry out all steps, and return the timeline."""
        self._name_rows()
        if not any("deploy" in step.words for step in self._scenario.steps):
            await self._deploy(self._dags)
        for step in self._scenario.steps:
            await self._pass_time(step.at)
            await self._take(step)
        await self._finish()
        return self._timeline

    def _name_rows(self) -> None:
        """Order the rows as the schedules name the datasets, then as the scenario does."""
        timeline = self._timeline
        for made in self._dags.values():
            condition = made.schedule.condition if made.schedule is not None else None
            if condition is None:
                continue
            if any(ticks(condition)):
                timeline.rows.setdefault(TICKS, {})
            for place in inputs(condition):
                if not place.pattern:
                    timeline.rows.setdefault(self._row(place.uri), {})
        timeline.dags = list(self._dags)

    def _row(self, uri: str) -> str:
        return next(name for name, each in self._datasets.items() if each == uri)

    async def _deploy(self, dag_ids) -> None:
        specs = [self._dags[each].to_spec("shop.py", "hash") for each in dag_ids]
        await Catalog(self._database, now=lambda: self.now).save([loaded(*specs)])
        due = [timer for timer in await self._timers() if timer.kind == "subscribe"]
        if due:
            await self._do(FireTimers(tuple(due)))

    async def _timers(self):
        return await Timers(self._database).upcoming()

    async def _pass_time(self, until: datetime) -> None:
        """End runs and fire timers in order, up to a moment, that included."""
        while True:
            due = [timer for timer in await self._timers() if timer.due_at <= until]
            first = min(timer.due_at for timer in due) if due else None
            if self._ends and self._ends[0][0] <= min(first or until, until):
                self.now, _, message = heapq.heappop(self._ends)
                await self._succeed(message)
            elif first is not None:
                self.now = max(self.now, first)  # a tick that was held is long due
                for timer in due:
                    if timer.kind == "tick" and timer.due_at == first:
                        self._timeline.rows[TICKS][first] = "▲"
                await self._do(FireTimers(tuple(each for each in due if each.due_at == first)))
            else:
                self.now = until
                return

    async def _take(self, step: Step) -> None:
        label = LABEL.match(step.words[0])
        if label is not None:
            await self._post(step, *label.groups())
            return
        verb, *names = step.words
        if verb == "until":
            self._timeline.end = step.at
            return
        dag_id = names[0] if names else next(iter(self._dags))
        if verb == "deploy":
            await self._deploy(names or self._dags)
        elif verb == "why":
            await self._explain(dag_id, **step.options)
        elif verb == "edit":
            await self._edit(**step.options)
        else:
            await self._do(self._call(verb, dag_id, dict(step.options)))
        row = self._timeline.rows.setdefault(YOU, {})
        row[step.at] = verb

    async def _explain(self, dag_id: str, partition: str | None = None) -> None:
        reader = ReadWhyNot(self._database, SpecReader())
        for reason in (await reader.why_not(dag_id, partition)).reasons:
            self._timeline.rest.append((f"why not at {self.now:%H:%M}", "", reason.text))

    async def _edit(self, params: dict[str, Any]) -> None:
        """Change the params of the first dead dead_letter and send it again."""
        ((payload,),) = await self._rows("SELECT payload FROM dead_letter WHERE id = 1")
        dead_letter = msgspec.json.decode(payload) | {"params": params}
        await self._do(RedriveDeadLetter(1, msgspec.json.encode(dead_letter)))

    def _call(self, verb: str, dag_id: str, options: dict[str, Any]):
        for name in ("since", "until"):
            if name in options:
                options[name] = self._scenario.moment(options[name])
        if verb in ("pause", "unpause"):
            return SetPaused(dag_id, paused=verb == "pause")
        if verb == "replay":
            return Replay(dag_id, **options)
        if verb == "backfill":
            keys = options.pop("partitions", "")
            return Backfill(dag_id, partitions=tuple(keys.split()), **options)
        assert verb == "trigger"
        return StartRun(dag_id)

    async def _post(self, step: Step, prefix: str, first: str, last: str | None) -> None:
        (name,) = (name for name in self._datasets if name.startswith(prefix))
        options = dict(step.options)
        hours = options.pop("hours", None)
        partition = options.pop("partition", None)
        time = options.pop("time", None)
        moment = self._scenario.moment(time) if time else None
        row = self._timeline.rows.setdefault(name, {})
        row[step.at] = f"{prefix}{first}" + (f"…{prefix}{last}" if last else "")
        keys = list(keys_of(RollUp("day", "hour", ZONE), hours)) if hours else []
        if hours:
            partition = f"{last} hours" if last else keys[int(first) - 1]
        note = _note(partition, time, options)
        if note:
            self._timeline.notes.setdefault(name, {})[step.at] = note
        for number in range(int(first), int(last or first) + 1):
            key = keys[number - 1] if keys else partition
            event = NewEvent(self._datasets[name], options, key, moment)
            ((recorded,),) = await self._do(RecordEvents((event,), (None,)))
            self._labels[UUID(recorded.event_id)] = f"{prefix}{number}"

    async def _succeed(self, message: TaskMessage) -> None:
        seconds = self.now.timestamp()
        fence = fence_of(message)
        await self._do(ResultMessage(*fence, "w1", Outcome.SUCCESS, seconds, seconds))

    async def _do(self, command: Any) -> list[Any]:
        """Process a command; tasks that it orders end now or after their time."""
        item = InboxItem(command, done=lambda _: None, failed=lambda _: None)
        batch = await commit_batch(self._database, self._processor, [item])
        assert item.error is None, item.error
        await self._look()
        for _, message in batch.orders:
            if self._scenario.takes:
                until = self.now + self._scenario.takes
                heapq.heappush(self._ends, (until, next(self._order), message))
            else:
                await self._succeed(message)
        return [item.answer]

    async def _rows(self, query: str, *arguments):
        async with self._database.connection() as connection:
            return await connection.fetch(query, *arguments)

    async def _look(self) -> None:
        """Record when runs were created, started and ended; name the events of tasks."""
        for row in await self._rows(RUNS):
            since = self._since.setdefault(row["id"], [self.now, None, None])
            if since[1] is None and row["state"] != "queued":
                since[1] = self.now
            if since[2] is None and since[1] is not None and not row["live"]:
                since[2] = self.now
        for row in await self._rows(EVENTS):
            if row["run"] is not None and row["event_id"] not in self._labels:
                self._name_emitted(row["event_id"], self._row(row["uri"]))

    def _name_emitted(self, event_id: UUID, name: str) -> None:
        """Number an event after the last one of its dataset."""
        labels = [label for label in self._labels.values() if label[0] == name[0]]
        self._labels[event_id] = label = f"{name[0]}{len(labels) + 1}"
        row = self._timeline.rows.setdefault(name, {})
        row[self.now] = f"{row[self.now]} {label}" if self.now in row else label

    async def _finish(self) -> None:
        events = {row["id"]: self._labels[row["event_id"]] for row in await self._rows(EVENTS)}
        consumed: dict[int, list[str]] = {}
        for row in await self._rows(CONSUMED):
            consumed.setdefault(row["run"], []).append(events[row["event"]])
        numbers: dict[str, int] = {}
        for row in await self._rows(RUNS):
            dag_id = row["dag_id"]
            numbers[dag_id] = number = numbers.get(dag_id, 0) + 1
            name = dag_id if len(self._dags) > 1 else "run"
            created, started, ended = self._since[row["id"]]
            self._timeline.runs.append(
                Run(
                    f"{name} {number}", dag_id, number, created, started, ended,
                    tuple(shortened(consumed.get(row["id"], []))), self._remarks(row),
                )
            )  # fmt: skip
        await self._add_rest(events)

    def _remarks(self, row) -> tuple[str, ...]:
        schedule = self._dags[row["dag_id"]].schedule
        remarks = []
        if row["kind"] in ("manual", "replay", "backfill"):
            remarks.append(row["kind"])
        if row["logical_time"] is not None:
            remarks.append(f"for {row['logical_time']:%a %H:%M}")
        if row["partition"] and schedule is not None and schedule.partitioning is not None:
            remarks.append(f"partition {row['partition']}")
        if row["params"]:
            remarks.append(f"params {msgspec.json.encode(row['params'], order='sorted').decode()}")
        if row["cause"] == LATE:
            remarks.append(LATE)
        return tuple(remarks)

    async def _add_rest(self, events: dict[int, str]) -> None:
        rest: dict[tuple[str, str], list[str]] = {}
        async with self._database.connection() as connection:
            found = await read_event_outcomes(connection, list(events))
        for event, outcomes in found.items():
            for outcome in outcomes:
                dag = "" if len(self._dags) == 1 else f"{outcome.dag_id}: "
                name = f"{dag}{outcome.outcome}"
                labels = rest.setdefault((name, outcome.reason or ""), [])
                if outcome.outcome != "consumed" and events[event] not in labels:
                    labels.append(events[event])
        for (name, reason), labels in rest.items():
            if not labels:
                continue
            self._timeline.rest.append((name, " ".join(shortened(labels)), reason))


def shortened(labels: list[str]) -> list[str]:
    """Write five or more labels in a row as `o1…o22`."""
    groups: list[list[str]] = []
    for label in labels:
        before = LABEL.match(groups[-1][-1]) if groups else None
        found = LABEL.match(label)
        if before and found and before[1] == found[1] and int(found[2]) == int(before[2]) + 1:
            groups[-1].append(label)
        else:
            groups.append([label])
    return [
        part
        for group in groups
        for part in ([f"{group[0]}…{group[-1]}"] if len(group) > 4 else group)
    ]


def _note(partition: str | None, time: str | None, extra: dict[str, Any]) -> str:
    remarks = [partition] if partition else []
    remarks += [f"of {time}"] if time else []
    remarks += [f"{name} {value}" for name, value in extra.items()]
    return " ".join(map(str, remarks))
