"""NATS subjects of messages."""

from pubsubflow.model.wire.messages import Fence, TaskMessage


class Subjects:
    """All subjects; docs/architecture.md draws which process uses which."""

    RESULT = "psf.in.result"
    STARTED = "psf.in.started"
    LOG = "psf.in.log"
    WORKER_LOST = "psf.in.worker_lost"
    EVENT = "psf.in.event"
    FIRED = "psf.in.fired"
    HEARTBEAT = "psf.hb.worker"
    CANCEL = "psf.ctl.cancel"
    DAGS_CHANGED = "psf.ctl.dags"
    DAG_DELETED = "psf.ctl.deleted"
    RELOAD = "psf.ctl.reload"
    CONNECTIONS_CHANGED = "psf.ctl.connections"
    TIMERS_CHANGED = "psf.ctl.timers"
    TRIGGERS_CHANGED = "psf.ctl.triggers"
    VARIABLES_CHANGED = "psf.ctl.variables"
    CHANGES = "psf.ctl.changes"
    CALLBACKS_CHANGED = "psf.ctl.callbacks"
    TOKENS_CHANGED = "psf.ctl.tokens"
    WORKER_REQUEST = "psf.req.worker"
    WORKER_REQUEST_TO_ALL = "psf.req.worker.all"
    HELD_TASKS = "psf.req.held"
    LIVE_LOG = "psf.log"
    WITNESS = "psf.state.witness"

    @staticmethod
    def inbound(kind: str, run: int) -> str:
        """Return the subject of a message about a run, in one of 8 partitions."""
        # Always the same one, so that the messages of a run stay in order.
        return f"{kind}.{run % 8}"

    @staticmethod
    def any_task(fence: Fence) -> str:
        """Return the subject of a delivery of a task, whatever its queue and kind."""
        return f"psf.task.*.*.{'.'.join(map(str, fence))}"

    @staticmethod
    def held_tasks(worker: str) -> str:
        """Return the subject on which a worker replies which tasks it does not have."""
        return f"{Subjects.HELD_TASKS}.{worker}"

    @staticmethod
    def task(queue: str, message: TaskMessage) -> str:
        """Return the subject of this delivery of a task; the stream takes one message a subject."""
        return (
            f"psf.task.{queue}.{message.kind}.{message.run}.{message.node}."
            f"{message.map_index}.{message.attempt}.{message.delivery}"
        )
