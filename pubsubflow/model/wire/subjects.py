"""Where messages go on the bus."""

from pubsubflow.model.wire.messages import TaskMessage


class Subjects:
    """The subjects of design §5, in one place."""

    RESULT = "psf.in.result"
    STARTED = "psf.in.started"
    LOG = "psf.in.log"
    GONE = "psf.in.gone"
    EVENT = "psf.in.event"
    FIRED = "psf.in.fired"
    HEARTBEAT = "psf.hb.worker"
    CANCEL = "psf.ctl.cancel"
    DAGS_CHANGED = "psf.ctl.dags"
    CONNECTIONS_CHANGED = "psf.ctl.connections"
    TIMERS_CHANGED = "psf.ctl.timers"
    TRIGGERS = "psf.ctl.triggers"
    NEWS = "psf.ctl.news"
    TOKENS_CHANGED = "psf.ctl.tokens"
    ASK = "psf.req.ask"
    LIVE_LOG = "psf.log"

    @staticmethod
    def inbound(kind: str, run: int) -> str:
        """Return the subject of a message about a run, spread over 8 partitions."""
        return f"{kind}.{run % 8}"

    @staticmethod
    def task(queue: str, message: TaskMessage) -> str:
        """Return the one subject of this delivery of a task: a second publish is refused."""
        return (
            f"psf.task.{queue}.{message.kind}.{message.run}.{message.node}."
            f"{message.map_index}.{message.attempt}.{message.delivery}"
        )
