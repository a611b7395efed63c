"""Checks as users write and test them."""

import msgspec
import pytest

from pubsubflow import CheckResult, Context, Dataset, DefinitionError, Retry, check
from pubsubflow.authoring.registry import loading
from pubsubflow.errors import InvalidInput, NewerFormat
from pubsubflow.model.schedule.checks import CheckPolicy, CheckVerdict, conclude, holds
from pubsubflow.model.schedule.conditions import Batch, Debounce, Each, Latest, describe_schedule
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.stored.values import StoredDecoder
from pubsubflow.testing import arun_check, event, run_check

ORDERS = Dataset("s3://lake/orders")


@check(ORDERS)
def has_rows(ctx, event):
    """Orders are never empty."""
    return event.extra["rows"] > 0


def test_a_check_is_a_function_and_a_dag():
    assert has_rows.name == "has_rows"
    assert has_rows(None, event(ORDERS, extra={"rows": 1})) is True
    spec = has_rows.dag.to_spec("orders.py", "hash")
    assert spec.dag_id == "check:has_rows"
    assert spec.description == "Orders are never empty."
    assert spec.schedule.policy == CheckPolicy()
    assert [task.task_id for task in spec.tasks] == ["check"]
    assert describe_schedule(spec.schedule).startswith("check(s3://lake/orders, blocking=True")


def test_a_check_is_of_the_file_that_loads():
    with loading("orders.py") as found:
        check(ORDERS, name="positive", blocking=False, severity="warn")(lambda: True)
    assert list(found.dags) == ["check:positive"]
    policy = found.dags["check:positive"].to_spec("orders.py", "hash").schedule.policy
    assert policy == CheckPolicy(blocking=False, severity="warn")


def test_two_checks_have_two_names():
    declare = check(ORDERS, name="positive")
    with loading("orders.py"):
        declare(lambda: True)
        with pytest.raises(DefinitionError, match="another name"):
            declare(lambda: True)


def test_options_are_those_of_its_task_and_its_dag():
    made = check(
        Dataset.match("s3://lake/*"), retries=Retry(2), timeout=5, max_active_runs=3, owner="ann"
    )(has_rows.function)
    spec = made.dag.to_spec("orders.py", "hash")
    assert (spec.max_active_runs, spec.owner) == (3, "ann")
    assert (spec.tasks[0].retry.retries, spec.tasks[0].timeout_seconds) == (2, 5.0)
    assert spec.schedule.condition.pattern


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: check(has_rows), "goes with one dataset"),
        (lambda: check(ORDERS.where("event.extra.rows > 0")), "goes with one dataset"),
        (lambda: check(ORDERS | Dataset("s3://lake/rates")), "goes with one dataset"),
        (lambda: check(Dataset("pubsubflow://alerts/check/x")), "no check holds them"),
        (lambda: check(ORDERS, blocking="yes"), "True or False"),
        (lambda: check(ORDERS, severity="fatal"), "'error' or 'warn'"),
        (lambda: check(ORDERS, outlets=[ORDERS])(lambda: True), "has no keyword 'outlets'"),
        (lambda: check(ORDERS)(3), "goes above a function"),
        (lambda: check(ORDERS, name="a")(pow), r"takes \(ctx, event\)"),
        (lambda: check(ORDERS, name="a b")(lambda: True), "may hold letters"),
    ],
)
def test_a_mistake_is_named(use, message):
    with pytest.raises(DefinitionError, match=message):
        use()


def test_run_check_gives_what_the_function_found():
    assert run_check(has_rows, event(ORDERS, extra={"rows": 3})) == CheckResult(passed=True)
    assert run_check(has_rows, (ORDERS, {"rows": 0})) == CheckResult(passed=False)

    @check(ORDERS)
    async def detailed(event, ctx: Context) -> CheckResult:
        return CheckResult(
            passed=False,
            severity="warn",
            description=f"in {ctx.run.dag_id}",
            metadata={"rows": event.extra["rows"]},
        )

    found = run_check(detailed, (ORDERS, {"rows": 2}))
    assert found == CheckResult(
        passed=False, severity="warn", description="in check:detailed", metadata={"rows": 2}
    )


@pytest.mark.anyio
async def test_run_check_on_a_loop():
    assert (await arun_check(has_rows, (ORDERS, {"rows": 3}))).passed


def test_run_check_raises_what_the_function_raises():
    with pytest.raises(KeyError, match="rows"):
        run_check(has_rows, event(ORDERS))
    with pytest.raises(InvalidInput, match="rates"):
        run_check(has_rows, Dataset("s3://lake/rates"))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returns True, False or CheckResult"),
        (1, "returns True, False or CheckResult"),
        (CheckResult("yes"), "must be True or False"),
        (CheckResult(passed=False, severity="fatal"), "must be 'warn' or 'error'"),
        (CheckResult(passed=False, description=3), "must be a string"),
        (CheckResult(passed=False, metadata={"at": float("nan")}), "metadata"),
        (CheckResult(passed=False, metadata={"text": "x" * 20_000}), "larger than"),
    ],
)
def test_a_result_that_is_none_is_refused(returned, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run_check(check(ORDERS, name="odd")(lambda: returned), ORDERS)


def result(*, passed: bool, severity=None) -> bytes:
    return msgspec.msgpack.encode({"passed": passed, "severity": severity})


@pytest.mark.parametrize(
    ("policy", "value", "verdict", "held"),
    [
        (CheckPolicy(), result(passed=True), "passed", False),
        (CheckPolicy(), result(passed=False), "failed", True),
        (CheckPolicy(), result(passed=False, severity="warn"), "failed", False),
        (CheckPolicy(), None, "error", True),
        (CheckPolicy(), b"\xc0", "error", True),
        (CheckPolicy(severity="warn"), result(passed=False), "failed", False),
        (CheckPolicy(severity="warn"), result(passed=False, severity="error"), "failed", True),
        (CheckPolicy(severity="warn"), None, "error", False),
        (CheckPolicy(blocking=False), result(passed=False), "failed", False),
        (CheckPolicy(blocking=False), None, "error", False),
    ],
)
def test_what_holds_an_event(policy, value, verdict, held):
    found = conclude(policy, value, "KeyError: 'rows'" if value is None else None)
    assert found.outcome == CheckVerdict(verdict)
    assert holds(policy, found) is held


def test_a_daemon_of_before_cannot_read_a_check_and_leaves_its_events():
    schedule = msgspec.defstruct(
        "ScheduleSpec",
        [("condition", object), ("policy", Each | Batch | Debounce | Latest, Each())],
    )
    before = msgspec.defstruct("DagSpec", [("dag_id", str), ("schedule", schedule | None, None)])
    encoded = msgspec.msgpack.encode(has_rows.dag.to_spec("orders.py", "hash"))
    assert isinstance(STORED_SPEC.decode(encoded), DagSpec)
    with pytest.raises(NewerFormat, match="check"):
        StoredDecoder(before, "the definition of a DAG").decode(encoded)
