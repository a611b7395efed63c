"""Limits of a task as users write them: rate limits, and keys that follow from a run."""

import re
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from typing import Any, Protocol

from msgspec import Struct

from pubsubflow.authoring.source_location import SourceLocation, definition_error, suggestion
from pubsubflow.authoring.validation import Seconds, optional, positive_seconds, text, whole
from pubsubflow.model.limits.keys import MAX_KEY_CHARACTERS, FurtherKey, KeyPart
from pubsubflow.model.limits.rates import RateLimitSpec

MAX_SLOTS = 1_000_000
MAX_PRIORITY = 1_000_000
_MAX_NAME_CHARACTERS = 250
_MAX_STARTS = 1_000_000
_MAX_SECONDS = 366 * 86_400.0

_VALUE = re.compile(r"\{\{-?(.*?)-?\}\}", re.DOTALL)
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_STEP = re.compile(rf"""\.({_NAME}|\d+)|\[\s*(?:'([^']*)'|"([^"]*)"|(\d+))\s*\]""")
_FILTER = re.compile(
    r"""\|\s*(?:(lower|upper)|(?:default|d)\(\s*(?:'([^']*)'|"([^"]*)")\s*(?:,\s*[Tt]rue\s*)?\))\s*"""
)
# What templates may call of params.
_METHODS = frozenset({"get", "items", "keys", "values"})
_KNOWN: dict[str, Collection[str] | None] = {
    "params": None,
    "run": ("run_id", "dag_id", "kind", "params", "logical_time", "partition"),
    "task": ("task_id", "map_index"),
    "ds": (),
}
"""First name of a path → what may follow; None for the names of the DAG's params."""


class RateLimit(Struct, frozen=True):
    """How many tasks may start in a time; tasks of all DAGs that name it share it.

    Args:
        name: Its name.
        starts: How many tasks may start.
        per: In which time.
        burst: How many may start at once after a pause; `starts` when left out. The smaller it is,
            the more evenly tasks start.
    """

    name: str
    starts: int
    per: Seconds = timedelta(seconds=1)
    burst: int | None = None

    def __post_init__(self) -> None:
        for field, check in _RATE_CHECKS.items():
            value = getattr(self, field)
            try:
                check(value)
            except (TypeError, ValueError) as error:
                raise definition_error(f"RateLimit: {field}={value!r} {error}") from None


def _name(value: object) -> str:
    name = text(value)
    if len(name) > _MAX_NAME_CHARACTERS or "\x00" in name or not name.strip():
        raise ValueError(f"must have 1 to {_MAX_NAME_CHARACTERS} characters and no NUL")
    return name


def _per(value: object) -> float:
    found = positive_seconds(value)
    if found > _MAX_SECONDS:
        raise ValueError("must be at most a year")
    return found


_RATE_CHECKS: dict[str, Callable[[object], Any]] = {
    "name": _name,
    "starts": whole(1, _MAX_STARTS),
    "per": _per,
    "burst": optional(whole(1, _MAX_STARTS)),
}


def rate_limit(value: object) -> RateLimit:
    """Return a rate limit.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, RateLimit):
        raise TypeError("must be a RateLimit, as in RateLimit('crm', 100, per=60)")
    return value


def key_text(value: object) -> str:
    """Return a concurrency key, or its template.

    Raises:
        TypeError: It is not a string.
        ValueError: It is too long, or a template that a manager could not render.
    """
    key = text(value)
    if "\x00" in key:
        raise ValueError("must not hold NUL")
    if not _is_template(key) and len(key) > MAX_KEY_CHARACTERS:
        raise ValueError(f"must have at most {MAX_KEY_CHARACTERS} characters")
    parse_key(key)
    return key


def parse_key(key: str) -> tuple[KeyPart, ...]:
    """Return the parts of a key with values of the run; none for one that always is the same.

    Raises:
        ValueError: It holds more than a manager renders.
    """
    if not _is_template(key):
        return ()
    return tuple(_parts(key))


def _is_template(key: str) -> bool:
    return "{{" in key or "{%" in key


def _parts(key: str) -> Iterator[KeyPart]:
    done = 0
    for found in _VALUE.finditer(key):
        if found.start() > done:
            yield KeyPart(_plain(key[done : found.start()]))
        yield _value(found[1].strip())
        done = found.end()
    if done < len(key):
        yield KeyPart(_plain(key[done:]))


def _plain(part: str) -> str:
    if "{{" in part or "{%" in part or "}}" in part:
        raise ValueError(f"cannot be read at {part!r}: {_REMEDY}")
    return part


_REMEDY = (
    "write {{ params.name }}, {{ run.partition }}, {{ task.map_index }} or {{ ds }}, with the "
    "filters lower, upper and default('…') alone: a manager renders it and runs no code"
)


def _value(expression: str) -> KeyPart:
    first = re.match(_NAME, expression)
    if first is None:
        raise ValueError(f"cannot be read at {expression!r}: {_REMEDY}")
    path: list[str | int] = [first[0]]
    at = first.end()
    while (step := _STEP.match(expression, at)) is not None:
        name = next(each for each in step.groups() if each is not None)
        path.append(int(name) if name.isdigit() and step[2] is None and step[3] is None else name)
        at = step.end()
    rest = expression[at:].strip()
    default = case = None
    while rest and (used := _FILTER.match(rest)) is not None:
        if used[1]:
            case = used[1]
        else:
            default = next(each for each in (used[2], used[3]) if each is not None)
        rest = rest[used.end() :].strip()
    if rest:
        raise ValueError(f"cannot be read at {rest!r}: {_REMEDY}")
    return KeyPart(path=_known(path), default=default, case=case)


def _known(path: list[str | int]) -> tuple[str | int, ...]:
    """Return a path from one of the known names on.

    Raises:
        ValueError: It begins with another name, or goes on with one that does not exist.
    """
    if path[0] == "ctx":
        path = path[1:] or [""]
    follow = _KNOWN.get(str(path[0]), ())
    if path[0] not in _KNOWN:
        raise ValueError(f"knows no {path[0]!r}{suggestion(str(path[0]), _KNOWN)}")
    if follow and (len(path) == 1 or path[1] not in follow):
        wrong = ".".join(map(str, path))
        known = (f"{path[0]}.{name}" for name in follow)
        raise ValueError(f"knows no {wrong!r}{suggestion(wrong, known)}")
    return tuple(path[1:]) if path[:2] == ["run", "params"] else tuple(path)


class LimitOptions(Protocol):
    """The options of a task that limit how many run."""

    @property
    def pool(self) -> str | None:
        """The pool."""

    @property
    def pool_slots(self) -> int:
        """How many slots of it."""

    @property
    def priority(self) -> int:
        """Its priority."""

    @property
    def concurrency_key(self) -> str | None:
        """The key, or its template."""

    @property
    def concurrency_limit(self) -> int:
        """How many with the same key."""

    @property
    def further_keys(self) -> tuple[tuple[str, int], ...]:
        """Further keys, each with its limit."""

    @property
    def keeps_slots(self) -> bool:
        """Whether it has its slots while it waits, too."""

    @property
    def rate_limit(self) -> RateLimit | None:
        """How often it may start."""


def limit_fields(
    options: LimitOptions, params: Collection[str], task_id: str, location: SourceLocation | None
) -> dict[str, Any]:
    """Return the fields of a TaskSpec that limit it.

    Args:
        options: The task's.
        params: Names of the DAG's params.
        task_id: For messages.
        location: For messages.

    Raises:
        DefinitionError: The limits do not fit together, or a param does not exist.
    """

    def bad(message: str) -> Exception:
        return definition_error(message, task_id=task_id, location=location)

    for start in ("tag:", "runs:tag:"):
        if (options.pool or "").startswith(start):
            raise bad(f"pool={options.pool!r}: names that begin with {start!r} limit tags of DAGs")
    if options.pool_slots > 1 and options.pool is None:
        raise bad(f"pool_slots={options.pool_slots} needs a pool=")
    key = options.concurrency_key
    if options.concurrency_limit > 1 and key is None:
        raise bad(f"concurrency_limit={options.concurrency_limit} needs a concurrency_key=")
    parts = () if key is None else parse_key(key)
    for part in parts:
        if part.path[:1] == ("params",) and part.default is None:
            name = str(part.path[1]) if len(part.path) > 1 else ""
            if name not in params:
                known = sorted(set(params) - _METHODS)
                hint = suggestion(name, known) if known else "; the DAG has none"
                raise bad(f"concurrency_key: {name!r} is not a param{hint}")
    rate = options.rate_limit
    return {
        "pool": options.pool,
        "pool_slots": options.pool_slots,
        "priority": options.priority,
        "concurrency_key": key,
        "concurrency_limit": options.concurrency_limit,
        "key_parts": parts,
        "further_keys": tuple(
            FurtherKey(parse_key(name) or (KeyPart(name),), limit)
            for name, limit in options.further_keys
        ),
        "keeps_slots": options.keeps_slots,
        "rate_limit": None
        if rate is None
        else RateLimitSpec(
            rate.name, rate.starts, positive_seconds(rate.per), rate.burst or rate.starts
        ),
    }
