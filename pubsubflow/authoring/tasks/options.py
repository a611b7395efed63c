"""Task options: the keywords of every task, checked one by one where they are written."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from msgspec import Struct

from pubsubflow.authoring.alerts.callbacks import callbacks
from pubsubflow.authoring.datasets import Dataset, uri_of
from pubsubflow.authoring.resources import Resources, resources_spec
from pubsubflow.authoring.schedules.dataset_expressions import ConstrainedDataset, DatasetExpression
from pubsubflow.authoring.source_location import definition_error, suggestion
from pubsubflow.authoring.tasks.airflow_words import TASK_WORDS, replacements, spelled_here
from pubsubflow.authoring.tasks.executors import executor_spec
from pubsubflow.authoring.tasks.limits import (
    MAX_PRIORITY,
    MAX_SLOTS,
    RateLimit,
    key_text,
    rate_limit,
)
from pubsubflow.authoring.tasks.retries import Retry, check_retry
from pubsubflow.authoring.validation import (
    Seconds,
    flag,
    number,
    optional,
    positive_seconds,
    seconds,
    text,
    whole,
)
from pubsubflow.errors import DefinitionError
from pubsubflow.executors import ExecutorOptions
from pubsubflow.model.spec import RetryPolicy, TriggerRule
from pubsubflow.model.wire.executor_spec import ExecutorSpec
from pubsubflow.model.wire.task_resources import ResourcesSpec

MAX_ID_CHARACTERS = 250
_ID = re.compile(r"[A-Za-z0-9_.-]+")


class OptionKeywords(TypedDict, total=False):
    """The keywords of `default_args`; durations are timedeltas or seconds."""

    outlets: "Iterable[Dataset | ConstrainedDataset | str] | Dataset | ConstrainedDataset | str"
    inlets: "Iterable[Dataset | str] | Dataset | str"
    retries: int | Retry
    retry_delay: Seconds
    retry_backoff: float
    max_retry_delay: Seconds | None
    retry_jitter: float
    timeout: Seconds | None
    trigger_rule: TriggerRule | str
    queue: str
    pool: str | None
    pool_slots: int
    priority: int
    concurrency_key: str | None
    concurrency_limit: int
    rate_limit: RateLimit | None
    executor: str | ExecutorOptions | None
    on_failure_fail_dagrun: bool
    depends_on_past: bool
    wait_for_downstream: bool
    resources: Resources | None
    on_success: Callable[..., object] | Sequence[Callable[..., object]] | None
    on_failure: Callable[..., object] | Sequence[Callable[..., object]] | None
    on_retry: Callable[..., object] | Sequence[Callable[..., object]] | None
    on_skipped: Callable[..., object] | Sequence[Callable[..., object]] | None
    doc: str | None
    multiple_outputs: bool
    map_index_template: str | None


class TaskKeywords(OptionKeywords, total=False):
    """The keywords of `@task(…)`."""

    task_id: str
    dag: object


class Outlets(Struct, frozen=True):
    """The datasets of which a task may emit events.

    Attributes:
        uris: Datasets that get an event when the task succeeds.
        patterns: Patterns of further datasets.
    """

    uris: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


class TaskOptions(Struct, frozen=True, kw_only=True):
    """The checked options of one task; durations in seconds.

    Attributes:
        further_keys: Concurrency keys beside the first one, each with its limit. It and
            `keeps_slots`, see `TaskSpec`, have no keyword: they are of Airflow's tasks.
    """

    outlets: Outlets = Outlets()
    inlets: tuple[str, ...] = ()
    retries: int | Retry = 0
    retry_delay: float = 0.0
    retry_backoff: float = 1.0
    max_retry_delay: float | None = None
    retry_jitter: float = 0.0
    timeout: float | None = None
    trigger_rule: TriggerRule = TriggerRule.ALL_SUCCESS
    queue: str = "default"
    pool: str | None = None
    pool_slots: int = 1
    priority: int = 0
    concurrency_key: str | None = None
    concurrency_limit: int = 1
    further_keys: tuple[tuple[str, int], ...] = ()
    keeps_slots: bool = False
    rate_limit: RateLimit | None = None
    executor: ExecutorSpec | None = None
    on_failure_fail_dagrun: bool = False
    depends_on_past: bool = False
    wait_for_downstream: bool = False
    resources: ResourcesSpec | None = None
    on_success: tuple[Callable[..., object], ...] = ()
    on_failure: tuple[Callable[..., object], ...] = ()
    on_retry: tuple[Callable[..., object], ...] = ()
    on_skipped: tuple[Callable[..., object], ...] = ()
    doc: str | None = None
    multiple_outputs: bool = False
    map_index_template: str | None = None

    @property
    def retry(self) -> RetryPolicy:
        """The retry policy."""
        if isinstance(self.retries, Retry):
            return self.retries.policy()
        return RetryPolicy(
            retries=self.retries,
            delay_seconds=self.retry_delay,
            backoff=self.retry_backoff,
            max_delay_seconds=self.max_retry_delay,
            jitter=self.retry_jitter,
        )


def check_id(value: object, what: str) -> str:
    """Return an id as it is.

    Raises:
        DefinitionError: It is not a string of 1 to 250 of the characters that ids may have.
    """
    if not isinstance(value, str) or not value:
        raise definition_error(f"{what} must be a string, not {value!r}")
    if len(value) > MAX_ID_CHARACTERS:
        raise definition_error(
            f"{what} {value[:40]!r}… is longer than {MAX_ID_CHARACTERS} characters"
        )
    if not _ID.fullmatch(value):
        raise definition_error(f"{what} {value!r} may hold letters, digits, '_', '-' and '.' only")
    return value


def _check_queue(value: object) -> str:
    """Return the name of a queue, which is a part of subjects, where a dot separates."""
    name = check_id(value, "queue")
    if "." in name:
        raise definition_error(f"queue {name!r} may hold letters, digits, '_' and '-' only")
    return name


def _listed(value: object) -> Collection[object]:
    if isinstance(value, DatasetExpression | str):
        value = (value,)
    if not isinstance(value, list | tuple | set | frozenset):
        raise TypeError("must be a list of datasets")
    # Sets have no stable order, and an unchanged file must give an unchanged spec.
    return sorted(value, key=repr) if isinstance(value, set | frozenset) else value


def _uris(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uri_of(dataset) for dataset in _listed(value)))


def _outlets(value: object) -> Outlets:
    uris, patterns = [], []
    for dataset in _listed(value):
        if isinstance(dataset, ConstrainedDataset) and dataset.is_plain_pattern:
            patterns.append(dataset.dataset_input.uri)
        else:
            uris.append(uri_of(dataset))
    return Outlets(tuple(dict.fromkeys(uris)), tuple(dict.fromkeys(patterns)))


_OLD_RULES = {"dummy": "always", "none_failed_or_skipped": "none_failed_min_one_success"}
"""Names that Airflow gave to rules once."""


def _rule(value: object) -> TriggerRule:
    value = _OLD_RULES.get(str(value), value)
    try:
        return TriggerRule(value)  # type: ignore[arg-type]
    except ValueError:
        raise ValueError("is not known" + suggestion(str(value), map(str, TriggerRule))) from None


def _retries(value: object) -> int | Retry:
    return value if isinstance(value, Retry) else whole(0)(value)


_CHECKS: dict[str, Callable[[object], Any]] = {
    "outlets": _outlets,
    "inlets": _uris,
    "retries": _retries,
    "retry_delay": seconds,
    "retry_backoff": number(1),
    "max_retry_delay": optional(positive_seconds),
    "retry_jitter": number(0, 1),
    "timeout": optional(positive_seconds),
    "trigger_rule": _rule,
    "queue": _check_queue,
    "pool": optional(text),
    "pool_slots": whole(1, MAX_SLOTS),
    "priority": whole(-MAX_PRIORITY, MAX_PRIORITY),
    "concurrency_key": optional(key_text),
    "concurrency_limit": whole(1, MAX_SLOTS),
    "rate_limit": optional(rate_limit),
    "executor": optional(executor_spec),
    "on_failure_fail_dagrun": flag,
    "depends_on_past": flag,
    "wait_for_downstream": flag,
    "resources": optional(resources_spec),
    "on_success": callbacks,
    "on_failure": callbacks,
    "on_retry": callbacks,
    "on_skipped": callbacks,
    "doc": optional(text),
    "multiple_outputs": flag,
    "map_index_template": optional(text),
}


def check_keywords(
    given: Mapping[str, Any],
    checks: Mapping[str, Callable[[object], Any]],
    what: str,
    *,
    task_id: str | None = None,
    also: Iterable[str] = (),
    words: Mapping[str, str] = TASK_WORDS,
) -> dict[str, Any]:
    """Return the given keywords with their values checked and converted.

    Args:
        given: Keyword → value as the user wrote it.
        checks: Keyword → function that returns the converted value or raises TypeError or
            ValueError.
        what: The callable that takes the keywords, for messages; empty where they name it anyway.
        task_id: The task concerned, for messages.
        also: Further known keywords, for suggestions.
        words: Keywords of Airflow → what to write in their place.

    Raises:
        DefinitionError: A keyword is unknown or its value is invalid.
    """
    checked: dict[str, Any] = {}
    prefix = f"{what}: " if what else ""
    for keyword, value in given.items():
        check = checks.get(keyword)
        if check is None:
            # All at once: a file from elsewhere would show one an import otherwise.
            if remedy := replacements((name for name in given if name not in checks), words):
                raise definition_error(f"{prefix}{remedy}", task_id=task_id)
            hint = suggestion(str(keyword), [*checks, *also])
            raise definition_error(
                f"{what or 'it'} has no keyword {keyword!r}{hint}", task_id=task_id
            )
        try:
            checked[keyword] = check(value)
        except (TypeError, ValueError) as error:
            raise definition_error(
                f"{prefix}{keyword}={value!r} {error}", task_id=task_id
            ) from None
        except DefinitionError as error:
            raise definition_error(f"{prefix}{error.message}", task_id=task_id) from error
    return checked


def check_options(
    given: Mapping[str, Any], what: str, *, task_id: str | None = None, also: Iterable[str] = ()
) -> dict[str, Any]:
    """Return checked task options; see `check_keywords`."""
    given = spelled_here(given)
    check_retry(given, what, task_id)
    return check_keywords(given, _CHECKS, what, task_id=task_id, also=("task_id", *also))


def check_defaults(given: object) -> dict[str, Any]:
    """Return the checked `default_args` of a DAG or group.

    Raises:
        DefinitionError: They are not a mapping, a keyword is unknown, or a value is invalid.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise definition_error(f"default_args must be a dict, not {given!r}")
    check_retry(given, "default_args", None)
    return check_keywords(spelled_here(given), _CHECKS, "default_args")
