"""Plays a story: the manager itself decides, on a real Postgres, by a clock that the story moves.

No task runs: as soon as one is handed out, or when the time is up that the story says, it succeeds.
"""

import heapq
import itertools
import random
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from dag_specs import loaded
from schedule_drawing import Happened, Run
from schedule_page import LABEL, Step, Story

from pubsubflow import DAG, Dataset
from pubsubflow.manager.batch import Fold
from pubsubflow.manager.inbox import Item
from pubsubflow.model.wire.commands import (
    Backfill,
    PostEvents,
    Replay,
    Resend,
    SetPaused,
    StartRun,
    TimersDue,
)
from pubsubflow.model.schedule.conditions import inputs, ticks
from pubsubflow.model.wire.messages import NewEvent, Outcome, ResultMessage, TaskMessage
from pubsubflow.model.schedule.partitions import RollUp, keys_of
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.database import Database, begin
from pubsubflow.store.manager_transaction import FoldTransaction
from pubsubflow.store.read.event_outcomes import read_fates
from pubsubflow.store.read.why_not import ReadWaiting
from pubsubflow.store.specs import Specs
from pubsubflow.store.timers import Timers

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
    """Plays one story with the names that an example's code defines."""

    def __init__(self, database: Database, names: Mapping[str, Any], story: Story) -> None:
        self.now = story.begins
        self._database = database
        self._story = story
        self._dags = {each.dag_id: each for each in names.values() if isinstance(each, DAG)}
        self._datasets = {
            name: each.uri for name, each in names.items() if isinstance(each, Dataset)
        } | {name: Dataset(uri).uri for name, uri in story.datasets.items()}
        self._fold = Fold(
            now=lambda: self.now, chance=random.Random(1).random, max_loops=story.limit
        )
        self._happened = Happened()
        self._labels: dict[UUID, str] = {}
        self._since: dict[int, list[datetime | None]] = {}
        self._ends: list[tuple[datetime, int, TaskMessage]] = []
        self._order = itertools.count()

    async def play(self) -> Happened:
        """Let everything happen, and return it."""
        self._name_rows()
        if not any("deploy" in step.words for step in self._story.steps):
            await self._deploy(self._dags)
        for step in self._story.steps:
            await self._pass_time(step.at)
            await self._take(step)
        await self._finish()
        return self._happened

    def _name_rows(self) -> None:
        """Let the rows be in the order of the schedules, then in that of the story."""
        happened = self._happened
        for made in self._dags.values():
            condition = made.schedule.condition if made.schedule is not None else None
            if condition is None:
                continue
            if any(ticks(condition)):
                happened.rows.setdefault(TICKS, {})
            for place in inputs(condition):
                if not place.pattern:
                    happened.rows.setdefault(self._row(place.uri), {})
        happened.dags = list(self._dags)

    def _row(self, uri: str) -> str:
        return next(name for name, each in self._datasets.items() if each == uri)

    async def _deploy(self, dag_ids) -> None:
        specs = [self._dags[each].to_spec("shop.py", "hash") for each in dag_ids]
        await Catalog(self._database, now=lambda: self.now).save([loaded(*specs)])
        due = [timer for timer in await self._timers() if timer.kind == "subscribe"]
        if due:
            await self._do(TimersDue(tuple(due)))

    async def _timers(self):
        return await Timers(self._database).upcoming()

    async def _pass_time(self, until: datetime) -> None:
        """Let runs end and timers be up, in order, until a moment; it included."""
        while True:
            due = [timer for timer in await self._timers() if timer.due_at <= until]
            first = min(timer.due_at for timer in due) if due else None
            if self._ends and self._ends[0][0] <= min(first or until, until):
                self.now, _, message = heapq.heappop(self._ends)
                await self._succeed(message)
            elif first is not None:
                self.now = first
                for timer in due:
                    if timer.kind == "tick" and timer.due_at == first:
                        self._happened.rows[TICKS][first] = "▲"
                await self._do(TimersDue(tuple(each for each in due if each.due_at == first)))
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
            self._happened.end = step.at
            return
        dag_id = names[0] if names else next(iter(self._dags))
        if verb == "deploy":
            await self._deploy(names or self._dags)
        elif verb == "why":
            await self._ask_why(dag_id, **step.options)
        elif verb == "edit":
            await self._edit(**step.options)
        else:
            await self._do(self._call(verb, dag_id, dict(step.options)))
        row = self._happened.rows.setdefault(YOU, {})
        row[step.at] = verb

    async def _ask_why(self, dag_id: str, partition: str | None = None) -> None:
        reader = ReadWaiting(self._database, Specs())
        for reason in (await reader.why_not(dag_id, partition)).reasons:
            self._happened.rest.append((f"why not at {self.now:%H:%M}", "", reason.text))

    async def _edit(self, params: dict[str, Any]) -> None:
        """Change the params of the first dead letter and send it again."""
        ((payload,),) = await self._rows("SELECT payload FROM dead_letter WHERE id = 1")
        letter = msgspec.json.decode(payload) | {"params": params}
        await self._do(Resend(1, msgspec.json.encode(letter)))

    def _call(self, verb: str, dag_id: str, options: dict[str, Any]):
        for name in ("since", "until"):
            if name in options:
                options[name] = self._story.moment(options[name])
        if verb in ("pause", "unpause"):
            return SetPaused(dag_id, paused=verb == "pause")
        if verb == "replay":
            return Replay(dag_id, **options)
        if verb == "backfill":
            keys = options.pop("partitions", "")
            return Backfill(dag_id, partitions=tuple(keys.split()), **options)
        assert verb == "trigger"
        return StartRun(dag_id)

    async def _post(self, step: Step, letters: str, first: str, last: str | None) -> None:
        (name,) = (name for name in self._datasets if name.startswith(letters))
        options = dict(step.options)
        hours = options.pop("hours", None)
        partition = options.pop("partition", None)
        time = options.pop("time", None)
        moment = self._story.moment(time) if time else None
        row = self._happened.rows.setdefault(name, {})
        row[step.at] = f"{letters}{first}" + (f"…{letters}{last}" if last else "")
        keys = list(keys_of(RollUp("day", "hour", ZONE), hours)) if hours else []
        if hours:
            partition = f"{last} hours" if last else keys[int(first) - 1]
        note = _note(partition, time, options)
        if note:
            self._happened.notes.setdefault(name, {})[step.at] = note
        for number in range(int(first), int(last or first) + 1):
            key = keys[number - 1] if keys else partition
            event = NewEvent(self._datasets[name], options, key, moment)
            ((recorded,),) = await self._do(PostEvents((event,), (None,)))
            self._labels[recorded.event_id] = f"{letters}{number}"

    async def _succeed(self, message: TaskMessage) -> None:
        seconds = self.now.timestamp()
        fence = (message.run, message.node, message.map_index, message.attempt, message.delivery)
        await self._do(ResultMessage(*fence, "w1", Outcome.SUCCESS, seconds, seconds))

    async def _do(self, what: Any) -> list[Any]:
        """Let the manager decide; tasks that it hands out end now or when their time is up."""
        item = Item(what, done=lambda _: None, failed=lambda _: None)
        async with self._database.connection() as connection:
            async with begin(connection):
                folded = await self._fold.fold([item], FoldTransaction(connection))
            self._fold.committed(folded)
        assert item.error is None, item.error
        await self._look()
        for _, message in folded.orders:
            if self._story.takes:
                until = self.now + self._story.takes
                heapq.heappush(self._ends, (until, next(self._order), message))
            else:
                await self._succeed(message)
        return [item.answer]

    async def _rows(self, query: str, *arguments):
        async with self._database.connection() as connection:
            return await connection.fetch(query, *arguments)

    async def _look(self) -> None:
        """Note since when runs exist, are active and over; name the events that tasks emitted."""
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
        """Go on counting from the last event of the dataset."""
        labels = [label for label in self._labels.values() if label[0] == name[0]]
        self._labels[event_id] = label = f"{name[0]}{len(labels) + 1}"
        row = self._happened.rows.setdefault(name, {})
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
            self._happened.runs.append(
                Run(
                    f"{name} {number}", dag_id, number, created, started, ended,
                    tuple(shortened(consumed.get(row["id"], []))), self._remarks(row),
                )
            )  # fmt: skip
        await self._add_rest(events)

    def _remarks(self, row) -> tuple[str, ...]:
        schedule = self._dags[row["dag_id"]].schedule
        said = []
        if row["kind"] in ("manual", "replay", "backfill"):
            said.append(row["kind"])
        if row["logical_time"] is not None:
            said.append(f"for {row['logical_time']:%a %H:%M}")
        if row["partition"] and schedule is not None and schedule.partitioning is not None:
            said.append(f"partition {row['partition']}")
        if row["params"]:
            said.append(f"params {msgspec.json.encode(row['params'], order='sorted').decode()}")
        if row["cause"] == LATE:
            said.append(LATE)
        return tuple(said)

    async def _add_rest(self, events: dict[int, str]) -> None:
        rest: dict[tuple[str, str], list[str]] = {}
        async with self._database.connection() as connection:
            found = await read_fates(connection, list(events))
        for event, fates in found.items():
            for fate in fates:
                name = fate.fate if len(self._dags) == 1 else f"{fate.dag_id}: {fate.fate}"
                labels = rest.setdefault((name, fate.reason or ""), [])
                if fate.fate != "consumed" and events[event] not in labels:
                    labels.append(events[event])
        for (name, reason), labels in rest.items():
            if not labels:
                continue
            self._happened.rest.append((name, " ".join(shortened(labels)), reason))


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
    said = [partition] if partition else []
    said += [f"of {time}"] if time else []
    said += [f"{name} {value}" for name, value in extra.items()]
    return " ".join(map(str, said))
