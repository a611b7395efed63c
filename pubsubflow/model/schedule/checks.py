"""Checks of dataset events: what a check has found, and whether that holds an event.

An event of a dataset with blocking checks is held: it is stored, and stands in the log only when
all of them have passed, or a person has released it. Its position there is that of its release.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

import msgspec
from msgspec import Struct

from pubsubflow.model.json_values import json_fault

CHECK_PREFIX = "check:"
"""The ids of the DAGs that checks are begin with it."""
CHECK_TASK = "check"
"""The one task of such a DAG."""
OWN_DATASETS = "pubsubflow://"
"""Events of these datasets are announcements of the product itself: no check holds them."""
MAX_METADATA_BYTES = 16 * 1024
MAX_DESCRIPTION_CHARACTERS = 2000
Severity = Literal["warn", "error"]
_decode = msgspec.msgpack.Decoder().decode


class CheckVerdict(StrEnum):
    """How a check of an event has come out.

    `error`: its function raised, timed out or was cancelled; `removed`: the check ceased to exist
    before it had passed.
    """

    WAITING = "waiting"
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    REMOVED = "removed"


class CheckResult(Struct, frozen=True):
    """What a check has found; a function may return a bool in its place.

    Attributes:
        passed: Whether the data is as it should be.
        severity: Of a failure: `error` holds the event if the check is blocking, `warn` never
            does; the check's own when None.
        description: One line for people.
        metadata: A JSON object, at most 16 KiB.
    """

    passed: bool
    severity: Severity | None = None
    description: str = ""
    metadata: Mapping[str, Any] = {}


class CheckPolicy(Struct, frozen=True, tag="check", omit_defaults=True):
    """The policy of a schedule whose runs check the events of its datasets.

    Daemons that do not know it can read no DAG that has it, and so leave every event of its
    datasets to those that do.

    Attributes:
        blocking: An event reaches no other subscriber before it has passed.
        severity: Of a failure for which its function names none.
    """

    blocking: bool = True
    severity: Severity = "error"


class Conclusion(Struct, frozen=True):
    """How a run of a check has come out; see `CheckResult`."""

    outcome: CheckVerdict
    severity: Severity
    description: str = ""
    metadata: dict[str, Any] = {}


def encode_result(found: object, name: str) -> dict[str, Any]:
    """Return what a check's function returned, as its task's result.

    Args:
        found: A bool or a `CheckResult`.
        name: The function, for errors.

    Raises:
        TypeError: It is neither, or a field of it is of a wrong type.
        ValueError: A field of it is too large, or no JSON.
    """
    result = CheckResult(found) if isinstance(found, bool) else found
    if not isinstance(result, CheckResult):
        raise TypeError(
            f"{name}() is a check: it returns True, False or CheckResult(…), not {found!r:.80}"
        )
    if not isinstance(result.passed, bool):
        raise TypeError(f"{name}(): CheckResult(passed=…) must be True or False")
    if result.severity not in (None, "warn", "error"):
        raise ValueError(f"{name}(): severity={result.severity!r} must be 'warn' or 'error'")
    if not isinstance(result.description, str):
        raise TypeError(f"{name}(): description={result.description!r:.80} must be a string")
    metadata = dict(result.metadata)
    fault = json_fault(metadata, f"{name}(): metadata")
    if fault is not None:
        raise ValueError(fault)
    size = len(msgspec.json.encode(metadata))
    if size > MAX_METADATA_BYTES:
        raise ValueError(
            f"{name}(): metadata of {size} bytes is larger than {MAX_METADATA_BYTES}: "
            "store it elsewhere and name where it is"
        )
    return {
        "passed": result.passed,
        "severity": result.severity,
        "description": result.description[:MAX_DESCRIPTION_CHARACTERS],
        "metadata": metadata,
    }


def decode_result(value: object) -> CheckResult:
    """Return the result of a check's task as its function returned it.

    Raises:
        ValidationError: It is not one.
    """
    return msgspec.convert(value, CheckResult)


def conclude(policy: CheckPolicy, value: bytes | None, error: str | None) -> Conclusion:
    """Return how a run of a check has come out.

    Args:
        policy: The check's.
        value: The encoded result of its task, if that has succeeded.
        error: Why the run has not succeeded, if so.
    """
    if value is None:
        reason = error or "its run ended without a result"
        return Conclusion(CheckVerdict.ERROR, policy.severity, reason[:MAX_DESCRIPTION_CHARACTERS])
    try:
        found = decode_result(_decode(value))
    except (msgspec.DecodeError, ValueError):
        return Conclusion(CheckVerdict.ERROR, policy.severity, "its run has no result of a check")
    outcome = CheckVerdict.PASSED if found.passed else CheckVerdict.FAILED
    severity = found.severity or policy.severity
    return Conclusion(outcome, severity, found.description, dict(found.metadata))


def holds(policy: CheckPolicy, found: Conclusion) -> bool:
    """Whether a check still holds an event after its run has ended."""
    failed = found.outcome in (CheckVerdict.FAILED, CheckVerdict.ERROR)
    return policy.blocking and failed and found.severity == "error"


def check_run_key(event_id: object, tries: int) -> str:
    """Return the key of the run that checks an event for the `tries`th time, from 1."""
    return f"{CHECK_PREFIX}{event_id}:{tries}"


def check_name(dag_id: str) -> str:
    """Return the name of the check that a DAG is."""
    return dag_id.removeprefix(CHECK_PREFIX)


def describe_hold(dag_id: str, outcome: str, description: str) -> str:
    """Return why a check holds an event, in one line.

    Args:
        dag_id: The DAG that the check is.
        outcome: What it has found.
        description: Its description of that, or of the error.
    """
    check = check_name(dag_id)
    if outcome == CheckVerdict.WAITING:
        return f"held by check {check}: it has not ended yet"
    what = "it failed" if outcome == CheckVerdict.FAILED else "it could not be carried out"
    return f"held by check {check}: {description or what}"
