"""Checks in tests: a check is carried out in this process, without servers."""

from typing import Any, Unpack

from pubsubflow.authoring.checks import Check
from pubsubflow.authoring.runtime.inprocess import InProcessKeywords
from pubsubflow.model.schedule.checks import CHECK_TASK, CheckResult, decode_result


def run_check(check: Check, event: Any, **more: Unpack[InProcessKeywords]) -> CheckResult:
    """Check an event in this process, and return what the check has found.

    Args:
        check: What `@check` has made.
        event: The event: a dataset, a tuple `(dataset, extra, partition, time)` of which the end
            may be left out, or what `pubsubflow.testing.event` returns.
        more: As for `DAG.test`, such as `connections` and `variables`.

    Raises:
        InvalidInput: The event is not of the check's dataset, or an event loop runs in this thread:
            use `arun_check`.
        Exception: The check raises it, once its retries are used up.
    """
    given: InProcessKeywords = {"raise_on_error": True, **more}
    return decode_result(check.dag.test(events=[event], **given).result(CHECK_TASK))


async def arun_check(check: Check, event: Any, **more: Unpack[InProcessKeywords]) -> CheckResult:
    """Do what `run_check` does, on the running event loop."""
    given: InProcessKeywords = {"raise_on_error": True, **more}
    done = await check.dag.atest(events=[event], **given)
    return decode_result(done.result(CHECK_TASK))
