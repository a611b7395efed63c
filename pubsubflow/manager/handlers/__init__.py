"""Handlers of the messages and commands that a manager processes: one class a kind."""

from pubsubflow.manager.handlers.approvals import AnswerApprovalHandler
from pubsubflow.manager.handlers.backfills import (
    AdvanceBackfillsHandler,
    BackfillHandler,
    ChangeBackfillHandler,
)
from pubsubflow.manager.handlers.checks import SettleHeldEventsHandler, SweepChecksHandler
from pubsubflow.manager.handlers.commands import (
    AnnotateRunHandler,
    CancelRunHandler,
    ClearTasksHandler,
    ReplayHandler,
    SetPausedHandler,
)
from pubsubflow.manager.handlers.dead_letters import (
    DiscardDeadLettersHandler,
    RedriveDeadLetterHandler,
    StoreDeadLetterHandler,
)
from pubsubflow.manager.handlers.direct_orders import ReturnDirectOrdersHandler
from pubsubflow.manager.handlers.events import RecordEventsHandler
from pubsubflow.manager.handlers.handler import BatchContext, DagLocks, Handler, Phase
from pubsubflow.manager.handlers.orphans import RequeueOrphansHandler
from pubsubflow.manager.handlers.past_waits import CheckPastWaitsHandler
from pubsubflow.manager.handlers.pools import ChangePoolHandler
from pubsubflow.manager.handlers.queued_runs import StartQueuedRunsHandler
from pubsubflow.manager.handlers.start_run import StartRunHandler
from pubsubflow.manager.handlers.tasks import (
    FiredHandler,
    LogHandler,
    ResultHandler,
    StartedHandler,
    WorkerLostHandler,
)
from pubsubflow.manager.handlers.timers import CheckEventWaitsHandler, FireTimersHandler
from pubsubflow.model.wire.commands import (
    AdvanceBackfills,
    AnnotateRun,
    AnswerApproval,
    Backfill,
    CancelRun,
    ChangeBackfill,
    CheckEventWaits,
    CheckPastWaits,
    ClearTasks,
    DeletePool,
    DiscardDeadLetters,
    FireTimers,
    MarkTasks,
    RecordEvents,
    RedriveDeadLetter,
    Replay,
    RequeueOrphans,
    ReturnDirectOrders,
    SetPaused,
    SetPool,
    SettleHeldEvents,
    StartQueuedRuns,
    StartRun,
    StoreDeadLetter,
    SweepChecks,
)
from pubsubflow.model.wire.messages import (
    FiredMessage,
    LogMessage,
    ResultMessage,
    StartedMessage,
    WorkerLostMessage,
)

__all__ = ["HANDLERS", "BatchContext", "DagLocks", "Handler", "Phase"]

# A phase goes through the kinds in this order. Dead letters are locked before watched datasets,
# both before idempotency keys are claimed; timers come last.
HANDLERS: dict[type, type[Handler]] = {
    RedriveDeadLetter: RedriveDeadLetterHandler,
    DiscardDeadLetters: DiscardDeadLettersHandler,
    FiredMessage: FiredHandler,
    AnswerApproval: AnswerApprovalHandler,
    RecordEvents: RecordEventsHandler,
    ResultMessage: ResultHandler,
    StartedMessage: StartedHandler,
    LogMessage: LogHandler,
    WorkerLostMessage: WorkerLostHandler,
    ReturnDirectOrders: ReturnDirectOrdersHandler,
    RequeueOrphans: RequeueOrphansHandler,
    StoreDeadLetter: StoreDeadLetterHandler,
    StartRun: StartRunHandler,
    SetPaused: SetPausedHandler,
    Replay: ReplayHandler,
    Backfill: BackfillHandler,
    ChangeBackfill: ChangeBackfillHandler,
    AdvanceBackfills: AdvanceBackfillsHandler,
    CancelRun: CancelRunHandler,
    AnnotateRun: AnnotateRunHandler,
    SetPool: ChangePoolHandler,
    DeletePool: ChangePoolHandler,
    StartQueuedRuns: StartQueuedRunsHandler,
    ClearTasks: ClearTasksHandler,
    MarkTasks: ClearTasksHandler,
    SettleHeldEvents: SettleHeldEventsHandler,
    SweepChecks: SweepChecksHandler,
    CheckEventWaits: CheckEventWaitsHandler,
    CheckPastWaits: CheckPastWaitsHandler,
    FireTimers: FireTimersHandler,
}
