"""Every exception that pubsubflow raises on purpose.

::

    PubsubflowError
    ├ ConfigError          a setting, a flag or a home folder is wrong
    ├ DefinitionError      a DAG file holds an invalid definition
    ├ InvalidInput         params, an event or a request that cannot be accepted
    │ └ StaleRevision      a conditional change of something that has changed meanwhile
    ├ NotFound             an unknown name
    ├ IllegalTransition    a state change that the transition table forbids
    ├ LeaseLost            the task has another owner now
    ├ Unavailable          worth a retry
    │ ├ StoreUnavailable   Postgres is away
    │ │ ├ StoreLocked      another session of Postgres holds a lock for too long
    │ │ └ StoreConflict    a transaction gave way to another one
    │ ├ BusUnavailable     NATS is away
    │ └ NewerFormat        a daemon of a newer version must process it
    ├ StoreRestored        Postgres holds an older state than before: services start anew
    ├ MessageRefused       NATS will never take this message
    ├ CannotStart          an executor cannot start an attempt
    ├ TriggerError         a trigger failed
    │ └ WaitTimeout        (a TimeoutError, too) a task's wait was not over in time
    ├ StepFailed           a step of a task raised
    ├ ReplayMismatch       a task that ran again took another path than before
    ├ TaskFailed           raised by a task to fail without further retries
    │ └ Fail               the same, shorter
    ├ TaskSkipped          raised by a task to be skipped
    │ └ Skip               the same, shorter
    ├ RetryAfter           raised by a task to be tried again after a time of its choice
    └ ServiceStopped       a service ended before it was stopped
"""

from datetime import timedelta


class PubsubflowError(Exception):
    """Base of all errors; its text is one line that says what to do."""


class ConfigError(PubsubflowError):
    """A setting, a flag, a file or the machine is not as it must be."""


class DefinitionError(PubsubflowError):
    """A DAG file holds an invalid definition.

    Args:
        message: The mistake and its remedy.
        file: The DAG file, if known.
        line: Line in that file, counted from 1.
        dag_id: The DAG concerned.
        task_id: The task concerned.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        dag_id: str | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.dag_id = dag_id
        self.task_id = task_id

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        dag = f"DAG {self.dag_id!r}" if self.dag_id else None
        task = f"task {self.task_id!r}" if self.task_id else None
        return ": ".join(
            part for part in (place, ", ".join(filter(None, (dag, task))), self.message) if part
        )


class InvalidInput(PubsubflowError):  # noqa: N818 - the user's input, not our error
    """Params, an event or a request that cannot be accepted; nothing was changed."""


class StaleRevision(InvalidInput):
    """A conditional change names an old revision; nothing was changed.

    Args:
        what: The thing to be changed, for people.
        revision: Its present revision.
    """

    def __init__(self, what: str, revision: str) -> None:
        super().__init__(
            f"{what} has changed since you looked, to revision {revision}: look again, then decide"
        )
        self.what = what
        self.revision = revision


class NotFound(PubsubflowError):  # noqa: N818 - a state of the world, named as users say it
    """An unknown name.

    Args:
        kind: The kind of thing, for example ``"DAG"``.
        name: The name.
        remedy: What to do about it, in a few words.
    """

    def __init__(self, kind: str, name: str, remedy: str = "") -> None:
        super().__init__(f"no {kind} named {name!r}" + (f": {remedy}" if remedy else ""))
        self.kind = kind
        self.name = name


class IllegalTransition(PubsubflowError):  # noqa: N818
    """A state change that the transition table does not hold."""

    def __init__(self, what: str, old: str, new: str) -> None:
        super().__init__(f"{what} cannot go from {old} to {new}")
        self.what = what
        self.old = old
        self.new = new


class LeaseLost(PubsubflowError):  # noqa: N818
    """The fence no longer matches: the task has another owner."""


class ResultLost(PubsubflowError):  # noqa: N818
    """The executor that kept a result has lost it; it was not copied."""


class Unavailable(PubsubflowError):  # noqa: N818
    """A server is away; trying again later is worth it."""


class StoreUnavailable(Unavailable):
    """Postgres cannot be reached or is shutting down."""


class StoreLocked(StoreUnavailable):
    """Another session of Postgres holds a lock that a statement waited for too long."""


class StoreConflict(StoreUnavailable):
    """Postgres ended a transaction in favour of another one, as in a deadlock; nothing changed."""


class BusUnavailable(Unavailable):
    """NATS cannot be reached or JetStream does not answer."""


class NewerFormat(Unavailable):
    """A message or a stored value has a form that only a newer version can read.

    Args:
        what: The thing, for people.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was written by a newer pubsubflow in a form that this one cannot read: "
            "a daemon of that version must process it, or upgrade this one"
        )
        self.what = what


class SecretsUnavailable(Unavailable):
    """A secrets backend cannot be reached or does not answer."""


class StoreRestored(PubsubflowError):  # noqa: N818 - a state of the world
    """Postgres was restored: what services remember of it is void, and they start anew."""


class MessageRefused(PubsubflowError):  # noqa: N818
    """A message that NATS will not take, however often it is sent."""


class CannotStart(PubsubflowError):  # noqa: N818 - a state of the world
    """An executor cannot start an attempt.

    Args:
        reason: One line for people, who read it in the task's output.
        again: Whether it may be possible later: the worker tries again, and no attempt is counted.
    """

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class TriggerError(PubsubflowError):
    """A trigger raised or could not be loaded."""


class WaitTimeout(TriggerError, TimeoutError):  # noqa: N818 - named as users know it
    """A task's wait was not over in time."""


class StepFailed(PubsubflowError):  # noqa: N818 - a step's end, named as its state
    """A step of a task raised; a replay raises the same.

    Args:
        step: Its name.
        type: Class name of the exception.
        message: Its message.
    """

    def __init__(self, step: str, type: str, message: str) -> None:
        super().__init__(f"step {step!r} failed: {type}: {message}")
        self.step = step
        self.type = type
        self.message = message


class ReplayMismatch(PubsubflowError):  # noqa: N818 - an event, not an error's kind
    """A task that ran again came to another step or wait than is recorded."""


class ResultNotFound(PubsubflowError, LookupError):  # noqa: N818 - a state of the world
    """A task has left nothing under the key that was pulled."""


class TaskFailed(PubsubflowError):  # noqa: N818
    """Raise it in a task to fail at once, whatever retries are left."""


class TaskSkipped(PubsubflowError):  # noqa: N818
    """Raise it in a task to mark it skipped."""


class Fail(TaskFailed):
    """Raise it in a task to fail at once, with the reason: `raise Fail("no such customer")`."""


class Skip(TaskSkipped):
    """Raise it in a task to skip it, with the reason: `raise Skip("nothing new today")`."""


class RetryAfter(PubsubflowError):  # noqa: N818 - what the task demands
    """Raise it in a task to fail the attempt and try again after a time of its choice.

    It is one of the task's `retries`: without any left the task fails.

    Args:
        delay: The time until the next attempt: a timedelta, or seconds; at most a year.
        reason: One line for people.

    Raises:
        ValueError: The delay is negative.
    """

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        if not seconds >= 0:
            raise ValueError(f"RetryAfter takes a time that is not negative, not {delay!r}")
        super().__init__(reason or f"to be tried again after {seconds:g} s")
        self.delay = delay


class ServiceStopped(PubsubflowError):  # noqa: N818
    """A service returned before it was stopped."""

    def __init__(self, name: str) -> None:
        super().__init__(f"service {name} stopped by itself")
        self.name = name
