"""Gives slots: who needs one of a pool, a DAG or a key waits in line, and goes when it is free.

All slots have one lock, the last that a transaction takes: after watches, event keys, runs, the
table of waits and gates. Whoever holds it may let any task go that waits, also of a run that it
has not locked: a row in state `ready` is removed only by who holds both locks, and changed by
nobody else. Transactions that concern no limited task do not come here.
"""

from collections.abc import Iterable, Sequence

from pubsubflow.errors import NotFound, PubsubflowError
from pubsubflow.manager.inbox import Item
from pubsubflow.manager.spec_cache import Versions
from pubsubflow.manager.unit_of_work import Ledger, LiveTask, Place, RunWork, decode_progress
from pubsubflow.model.revisions import check_revision, pool_revision
from pubsubflow.model.runs.concurrency import POOL, Limit, Line, Room, Waiter
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.wire.commands import RemovePool, SetPool
from pubsubflow.store.manager_transaction import FoldTransaction

AWAY = (TaskState.DEFERRED, TaskState.UP_FOR_RETRY)
"""States of live tasks that need no slot."""

_Limits = tuple[Limit, ...]


class Slots:
    """Remembers which lines there are: they never change."""

    def __init__(self) -> None:
        self._lines: dict[_Limits, int] = {}

    async def settle(
        self,
        items: Sequence[Item],
        ledger: Ledger,
        transaction: FoldTransaction,
        versions: Versions,
    ) -> None:
        """Take back and give out slots as what is decided asks for.

        Tasks to hand out that get no slot are `ready` instead; others get theirs and are handed
        out with the batch, whatever run they belong to.
        """
        leaving, joining = _leaving(ledger), _joining(ledger)
        pools = [item for item in items if isinstance(item.what, SetPool | RemovePool)]
        if not (leaving or joining or pools):
            return
        await transaction.fetch("lock_slots")
        work = _Work(ledger, transaction, versions, self._lines)
        await work.leave(leaving)
        await work.set_pools(pools)
        await work.join(joining)
        await work.serve()

    def committed(self, ledger: Ledger) -> None:
        """Note that the transaction of a batch has committed."""
        self._lines.update(ledger.lines)


def _leaving(ledger: Ledger) -> list[Place]:
    """Name the tasks that may have a slot and need none any more."""
    found = {place for place in ledger.cleared if _limited(ledger.runs.get(place[0]), place[1])}
    for run in ledger.runs.values():
        limits = run.version.plan.limits
        if limits:
            found.update((run.number, *key) for key in run.removed if limits[key[0]])
            found.update(
                (run.number, *key)
                for key, task in run.live.items()
                if task.slotted and task.state in AWAY and limits[key[0]]
            )
    return sorted(found)


def _limited(run: RunWork | None, node: int) -> bool:
    return run is None or bool(run.version.plan.limits and run.version.plan.limits[node])


def _joining(ledger: Ledger) -> list[Place]:
    """Name the tasks that are to be handed out and need a slot first, in order."""
    return sorted(
        (run.number, *key)
        for run in ledger.runs.values()
        if run.version.plan.limits
        for key in run.dispatch
        if run.version.plan.limits[key[0]] and not run.live[key].slotted
    )


class _Work:
    """The slots of one transaction, locked."""

    def __init__(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        versions: Versions,
        known: dict[_Limits, int],
    ) -> None:
        self._ledger = ledger
        self._transaction = transaction
        self._versions = versions
        self._known = known
        self._names: set[str] = set()
        self._used: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self._joined: set[Place] = set()

    async def leave(self, places: Sequence[Place]) -> None:
        """Take back the slots of tasks, or their places in line."""
        for row in await self._transaction.fetch_rows("leave_slots", places):
            self._count(row["line"], used=-row["held"], waiting=row["held"] - 1)

    async def set_pools(self, items: Iterable[Item]) -> None:
        """Carry out what is asked of pools."""
        for item in items:
            what = item.what
            if not isinstance(what, SetPool | RemovePool):
                raise TypeError("that is no request about a pool")
            try:
                await self._set_pool(what, tried=item.tried)
            except PubsubflowError as error:
                item.error = error
            else:
                self._names.add(f"{POOL}{what.name}")

    async def _set_pool(self, what: SetPool | RemovePool, *, tried: bool) -> None:
        """Set or remove a pool; one that was tried before may be as it is to be already."""
        rows = await self._transaction.fetch("read_pools", [what.name])
        slots = rows[0]["slots"] if rows else None
        if tried and slots == (what.slots if isinstance(what, SetPool) else None):
            return
        revision = pool_revision(rows[0]["changed_at"] if rows else None)
        check_revision(f"pool {what.name!r}", revision, what.revisions)
        if isinstance(what, SetPool):
            await self._transaction.fetch("set_pool", what.name, what.slots)
        elif not await self._transaction.fetch("remove_pool", what.name):
            raise NotFound("pool", what.name)

    async def join(self, places: Sequence[Place]) -> None:
        """Let tasks stand in line."""
        rows = []
        for place in places:
            version = self._ledger.runs[place[0]].version
            line = await self._line(version.plan.limits[place[1]])
            rows.append((*place, line, version.spec.tasks[place[1]].priority))
            self._count(line, waiting=1)
        await self._transaction.write("join_lines", rows)
        self._joined.update(places)

    async def _line(self, limits: _Limits) -> int:
        known = self._known.get(limits) or self._ledger.lines.get(limits)
        if known is None:
            names, most = [limit.name for limit in limits], [limit.most for limit in limits]
            known = (await self._transaction.fetch("name_line", names, most))[0]["id"]
            self._ledger.lines[limits] = known
        return known

    def _count(self, line: int, *, used: int = 0, waiting: int = 0) -> None:
        self._used[line] = self._used.get(line, 0) + used
        self._waiting[line] = self._waiting.get(line, 0) + waiting

    async def serve(self) -> None:
        """Give slots to those who are next; the others wait."""
        chosen = await self._choose()
        for waiter in chosen:
            self._count(waiter.line, used=1, waiting=-1)
        places = sorted(waiter.place for waiter in chosen)
        await self._transaction.write("hold_slots", places)
        counts = [
            (line, used, self._waiting[line])
            for line, used in sorted(self._used.items())
            if used or self._waiting[line]
        ]
        await self._transaction.write("count_lines", counts)
        for place in self._joined.difference(places):
            run, key = self._ledger.runs[place[0]], place[1:]
            run.dispatch.remove(key)
            run.live[key].state = TaskState.READY
        await self._let_go([place for place in places if place not in self._joined])

    async def _choose(self) -> list[Waiter]:
        rows = await self._transaction.fetch("read_lines", sorted(self._used), sorted(self._names))
        lines, concerned = [], []
        for row in rows:
            number = row["id"]
            limits = tuple(map(Limit, row["limits"], row["most"]))
            used = row["used"] + self._used.get(number, 0)
            line = Line(number, limits, used, row["waiting"] + self._waiting.get(number, 0))
            lines.append(line)
            if row["concerned"] and line.waiting:
                concerned.append(line)
        pools = {
            limit.name.removeprefix(POOL)
            for line in concerned
            for limit in line.limits
            if limit.name.startswith(POOL)
        }
        slots = await self._transaction.fetch("read_pools", sorted(pools)) if pools else []
        room = Room(lines, {row["name"]: row["slots"] for row in slots})
        asked = [(line.number, room.in_line(line)) for line in concerned if room.in_line(line)]
        first = await self._transaction.fetch_rows("read_first_waiting", asked)
        waiters = [
            Waiter(
                (row["run"], row["node"], row["map_index"]),
                row["line"],
                row["priority"],
                row["position"],
            )
            for row in first
        ]
        return room.choose(concerned, waiters)

    async def _let_go(self, places: Sequence[Place]) -> None:
        """Hand out tasks that waited, with this batch; their runs may be anybody's."""
        rows = await self._transaction.fetch_rows("release_ready", places)
        foreign = sorted({row["run"] for row in rows} - self._ledger.runs.keys())
        runs = await self._transaction.fetch("read_runs_of_tasks", foreign) if foreign else []
        await self._versions.load(self._transaction, (row["version"] for row in runs))
        for row in runs:
            version, progress = self._versions.get(row["version"]), decode_progress(row["progress"])
            self._ledger.runs[row["run"]] = RunWork(
                row["run"], version, progress, row["info"], new=False
            )
        for row in rows:
            run, key = self._ledger.runs[row["run"]], (row["node"], row["map_index"])
            run.live[key] = LiveTask(
                row["attempt"],
                row["delivery"],
                row["crashes"],
                started_at=row["started_at"],
                base=row["base"],
                stored=True,
                slotted=True,
                changed=False,
                before=(TaskState.READY, row["attempt"]),
            )
            run.dispatch.append(key)
