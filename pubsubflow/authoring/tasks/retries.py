"""`Retry`: how often, when, and after which exceptions a failed task is tried again."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.validation import (
    Seconds,
    number,
    optional,
    positive_seconds,
    seconds,
    whole,
)
from pubsubflow.errors import RetryAfter
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.messages import TaskError


class Retry(Struct, frozen=True):
    """The retries of a task: `retries=Retry(3, delay=timedelta(seconds=5), on=(TimeoutError,))`.

    Args:
        retries: Further attempts after the first.
        delay: Before the second attempt; a timedelta or seconds.
        backoff: Factor by which the delay grows with every further attempt.
        jitter: Share of the delay, 0 to 1, by which it is lengthened at random.
        max_delay: Upper bound of the delay.
        on: Only after these exceptions; after all of them if empty. A time limit that is over
            counts as `TimeoutError`. A process that dies raises none, and is tried again.
        never: Not after these, even if `on` holds them.

    Raises:
        DefinitionError: A value is invalid.
    """

    retries: int
    delay: Seconds = 0.0
    backoff: float = 1.0
    jitter: float = 0.0
    max_delay: Seconds | None = None
    on: tuple[type[BaseException], ...] = ()
    never: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            try:
                check(value)
            except (TypeError, ValueError) as error:
                raise definition_error(f"Retry: {name}={value!r} {error}") from None

    def policy(self) -> RetryPolicy:
        """Return the serialised form."""
        return RetryPolicy(
            retries=self.retries,
            delay_seconds=seconds(self.delay),
            backoff=float(self.backoff),
            max_delay_seconds=None if self.max_delay is None else seconds(self.max_delay),
            jitter=float(self.jitter),
            on=tuple(map(_qualified, _classes(self.on))),
            never=tuple(map(_qualified, _classes(self.never))),
        )

    def excludes(self, error: BaseException) -> str | None:
        """Return why no attempt follows an exception; None if one may.

        Of an exception group every exception counts: one in `never` is enough, and all must be in
        `on`.
        """
        raised, never, on = list(_leaves(error)), _classes(self.never), _classes(self.on)
        for each in raised:
            if isinstance(each, never):
                return f"{type(each).__name__} is in never="
        for each in raised:
            if on and not isinstance(each, on):
                return f"{type(each).__name__} is not in on="
        return None


def judged(retry: object, error: BaseException, described: TaskError) -> TaskError:
    """Return the error of an attempt, final if the retries exclude the exception.

    Args:
        retry: The task's `retries`.
        error: What it raised.
        described: The error as it is reported.
    """
    if not isinstance(retry, Retry) or described.final or isinstance(error, RetryAfter):
        return described
    reason = retry.excludes(error)
    if reason is None:
        return described
    return replace(described, final=True, message=f"{described.message} (not retried: {reason})")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _classes(value: Any) -> tuple[type[BaseException], ...]:
    # One class alone is what people write first.
    return (value,) if isinstance(value, type) else tuple(value)


def _qualified(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _exceptions(value: Any) -> None:
    kinds: Iterable[Any] = (value,) if isinstance(value, type) else value
    if not isinstance(kinds, tuple | list) or not all(
        isinstance(each, type) and issubclass(each, BaseException) for each in kinds
    ):
        raise TypeError("must be exception classes, as in (TimeoutError, OSError)")


_CHECKS: dict[str, Callable[[Any], object]] = {
    "retries": whole(0),
    "delay": seconds,
    "backoff": number(1),
    "jitter": number(0, 1),
    "max_delay": optional(positive_seconds),
    "on": _exceptions,
    "never": _exceptions,
}
_DELAYS = ("retry_delay", "retry_backoff", "max_retry_delay", "retry_jitter")


def check_retry(given: Mapping[str, Any], what: str, task_id: str | None) -> None:
    """Raise DefinitionError if a Retry stands beside keywords that it holds itself."""
    beside = [each for each in _DELAYS if each in given]
    if beside and isinstance(given.get("retries"), Retry):
        raise definition_error(
            f"{what}: {beside[0]}= stands beside retries=Retry(…), which holds it: "
            "Retry(n, delay=, backoff=, max_delay=, jitter=)",
            task_id=task_id,
        )


def after_seconds(error: BaseException) -> float | None:
    """Return the seconds after which an exception demands the next attempt, if it does."""
    if not isinstance(error, RetryAfter):
        return None
    delay = error.delay
    return delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
