"""Direct orders: tasks that go to the worker of this daemon, without a hop over the bus.

Their rows name that worker from the start, so they are handed out again when it is lost. They go
there only while no other worker serves their queue, which would get its share of them, and nothing
waits in it, which they would overtake.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from pubsubflow.manager.outbox.orders import LATEST_SECONDS
from pubsubflow.manager.unit_of_work import CommittedBatch, UnitOfWork
from pubsubflow.model.wire.commands import ReturnDirectOrders
from pubsubflow.model.wire.direct_orders import OrderTaker
from pubsubflow.model.wire.messages import Fence, TaskMessage, encode
from pubsubflow.model.wire.subjects import Subjects

log = structlog.get_logger()

_AGAIN_SECONDS = 1.0
Order = tuple[str, TaskMessage]
"""Queue and order."""


class DirectOrders:
    """Chooses orders for the worker of this daemon, and hands them over.

    Args:
        taker: The worker.
        is_shared: Whether another worker serves a queue, too.
        submit: Has a command carried out; calls a function if that fails.
    """

    def __init__(
        self,
        taker: OrderTaker,
        is_shared: Callable[[str], bool],
        submit: Callable[[ReturnDirectOrders, Callable[[Exception], None]], None],
    ) -> None:
        self._taker = taker
        self._is_shared = is_shared
        self._submit = submit

    def choose(self, uow: UnitOfWork) -> None:
        """Mark new tasks as the worker's, as many as it has room for."""
        rooms: dict[tuple[str, str], int] = {}
        for run in uow.runs.by_id.values():
            for key in run.dispatch:
                task, spec = run.live[key], run.version.spec.tasks[key[0]]
                # A further attempt, or delivery, may follow one that this worker could not carry
                # out: the bus finds another worker, or this one again.
                if task.stored or task.prior_attempts or spec.resources or spec.executor:
                    continue
                place = spec.queue, spec.kind
                if place not in rooms:
                    shared = self._is_shared(spec.queue)
                    rooms[place] = 0 if shared else self._taker.room(*place)
                if rooms[place] > 0:
                    rooms[place] -= 1
                    task.direct, task.worker = True, self._taker.worker_id

    def hand_over(self, committed: CommittedBatch, seconds: float) -> list[Order]:
        """Hand over the orders of a committed batch that are the worker's; return the others.

        Args:
            committed: The batch.
            seconds: How long ago its transaction began.
        """
        runs = committed.uow.runs.by_id
        others: list[Order] = []
        # This process may have stood still: the worker may be taken for lost already.
        is_late = seconds >= LATEST_SECONDS
        for each in committed.orders:
            queue, order = each
            if not runs[order.run].live[order.node, order.map_index].direct:
                others.append(each)
            elif not is_late:
                subject = Subjects.task(queue, order)
                give_back = partial(self._give_back, each)
                self._taker.take(queue, order.kind, subject, encode(order), give_back)
        if is_late and len(others) < len(committed.orders):
            log.warning("manager.orders_left", seconds=round(seconds, 1))
            self.doubt(committed)
        return others

    def doubt(self, committed: CommittedBatch) -> None:
        """Have orders handed out anew that the worker does not get, if they were committed."""
        runs = committed.uow.runs.by_id
        own = [
            _fence(each)
            for each in committed.orders
            if runs[each[1].run].live[each[1].node, each[1].map_index].direct
        ]
        if own:
            self._return(*own)

    def _give_back(self, order: Order) -> None:
        self._return(_fence(order))

    def _return(self, *fences: Fence) -> None:
        def again(_: Exception) -> None:
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, partial(self._return, *fences))

        self._submit(ReturnDirectOrders(self._taker.worker_id, fences), again)


def _fence(each: Order) -> Fence:
    order = each[1]
    return order.run, order.node, order.map_index, order.attempt, order.delivery
