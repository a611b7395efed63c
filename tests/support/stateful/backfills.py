"""Random workload of backfills that overlap; the database checks their limits at every commit."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from pubsubflow.errors import InvalidInput, StoreUnavailable
from pubsubflow.model.schedule.backfills import BackfillState
from pubsubflow.model.schedule.timetable import CronSpec
from pubsubflow.model.wire.commands import (
    Backfill,
    CancelRun,
    ChangeBackfill,
    ClearTasks,
    SetPaused,
    StartRun,
)
from pubsubflow.model.wire.messages import Outcome, TaskError
from support.specs import dag, task
from support.stateful.workload import RandomWorkload

LIMIT = 2
CHECKS = f"""
CREATE FUNCTION check_backfills() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO violation SELECT format('backfill %s has %s active runs', f.id, count(*))
    FROM backfill AS f JOIN backfill_run AS b ON b.backfill = f.id AND NOT b.ended
    GROUP BY f.id HAVING count(*) > f.max_active;
    INSERT INTO violation SELECT format('%s: %s live runs are not counted', b, run.state)
    FROM backfill_run AS b JOIN run ON run.id = b.run
    WHERE NOT b.ended AND run.ended_at IS NOT NULL;
    INSERT INTO violation SELECT format('%s: wrong counts', s) FROM dag_state AS s
    WHERE s.backfills <> (SELECT count(*) FROM backfill WHERE open)
       OR s.active - s.apart > {LIMIT} + (SELECT count(*) FROM run WHERE clear_number > 0)
       OR s.apart <> (SELECT count(*) FROM backfill_run AS b JOIN backfill AS f ON f.id = b.backfill
                      WHERE NOT b.ended AND f.max_active IS NOT NULL);
    INSERT INTO violation SELECT format('%s made another number of runs', f) FROM backfill AS f
    WHERE f.made <> (SELECT count(*) FROM backfill_run AS b WHERE b.backfill = f.id)
       OR f.decided > f.planned OR f.made > f.decided
       OR f.state = 'completed' AND (f.open OR f.decided <> f.planned)
       OR f.state = 'running' AND NOT f.open;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_backfills AFTER INSERT OR UPDATE ON backfill
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_backfills();
CREATE CONSTRAINT TRIGGER check_backfill_runs AFTER INSERT OR UPDATE ON backfill_run
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_backfills();
"""
DAY = datetime(2026, 1, 1, tzinfo=UTC)
OUTCOMES = [Outcome.SUCCESS] * 5 + [Outcome.FAILED] * 2 + [Outcome.CRASHED]


class BackfillsWorkload(RandomWorkload):
    """One DAG, backfills of overlapping times of it, and the random actions on them."""

    burst = 12

    async def prepare(self) -> None:
        await self._admin.execute(CHECKS)
        tasks = [task("a"), task("b", "a")]
        await self.harness.load(
            dag("d", *tasks, timetable=CronSpec("0 * * * *"), max_active_runs=LIMIT)
        )

    def actions(self):
        return {
            self._backfill: 6,
            self._change: 8,
            self._work: 50,
            self._start: 3,
            self._cancel: 3,
            self._clear: 2,
            self._pause: 2,
            self.kill_connections: 1,
        }

    async def _backfill(self) -> None:
        chance = self.chance
        since = DAY + timedelta(hours=chance.randint(0, 12))
        way = chance.choice(["again", "only_failed", None, None])
        await self.call(
            Backfill(
                "d",
                since=since,
                until=since + timedelta(hours=chance.randint(1, 12)),
                newest_first=chance.random() < 0.5,
                max_active_runs=chance.choice([None, 1, 2, 4]),
                **({way: True} if way else {}),
            )
        )

    async def _change(self) -> None:
        rows = []
        with suppress(StoreUnavailable):  # its connection was killed
            rows = await self.harness.rows("SELECT backfill_id FROM backfill WHERE open")
        if rows:
            state = self.chance.choice(["paused", "paused", "running", "running", "cancelled"])
            with suppress(InvalidInput):  # it is over
                await self.call(ChangeBackfill(self.chance.choice(rows)[0], state))

    async def _start(self) -> None:
        await self.call(StartRun("d"))

    async def _pause(self) -> None:
        await self.call(SetPaused("d", paused=self.chance.random() < 0.5))

    async def _cancel(self) -> None:
        if self.harness.received:
            run_id = self.chance.choice(self.harness.received).info.run_id
            with suppress(InvalidInput):  # it has ended, or is just changing
                await self.call(CancelRun(run_id))

    async def _clear(self) -> None:
        if self.harness.received:
            run_id = self.chance.choice(self.harness.received).info.run_id
            with suppress(InvalidInput):  # there is nothing to clear
                await self.call(ClearTasks(run_id, only_failed=True))

    async def _work(self) -> None:
        """Act as a worker on an order that it has received."""
        if self.harness.orders:
            order = self.harness.orders.pop(self.chance.randrange(len(self.harness.orders)))
            outcome = self.chance.choice(OUTCOMES)
            error = TaskError("E", "no", final=True) if outcome is not Outcome.SUCCESS else None
            self.harness.answer(order, [order.result(outcome, error=error)])

    async def drain(self) -> None:
        for row in await self.harness.rows("SELECT backfill_id FROM backfill WHERE open"):
            with suppress(InvalidInput):
                await self.call(ChangeBackfill(row[0], BackfillState.RUNNING))
        await self.answer_everything(
            lambda order: [order.result(worker="good")], calls=self.harness.managers[0]
        )
