"""Calls: a run is started, and its result is printed."""

from typing import Annotated

from pubsubflow.cli import output
from pubsubflow.cli.param_values import run_params
from pubsubflow.cli.parsers import Moment, moment
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.texts import Text
from pubsubflow.client import RequestFailed
from pubsubflow.model.runs.states import RunState


async def call_dag(
    dag: str,
    /,
    *,
    param: Annotated[tuple[str, ...], Parameter(alias="-p")] = (),
    params: str | None = None,
    timeout: float = 30.0,  # noqa: ASYNC109 - an option of the command
    logical_time: Moment = None,
    partition: str | None = None,
    run_key: str | None = None,
    target: Target = DEFAULT,
) -> int:
    """Start a run and print its result; fail if the run fails, or takes longer than the timeout.

    Args:
        dag: Id of the DAG; it names the task that returns the result by `DAG(result=…)`.
        param: A param of the run, as name=value; the value is read as the param's type, as
            JSON, or else as text. May be repeated.
        params: All of the run's params, as a JSON object.
        timeout: How many seconds to wait for the result; 30 if left out.
        logical_time: Logical time of the run.
        partition: Partition of the run.
        run_key: Idempotency key: another call with the same key prints the result of the same run.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        try:
            answer = await client.call(
                dag,
                params=await run_params(client, dag, params, param),
                timeout_seconds=timeout,
                logical_time=moment(logical_time),
                partition=partition,
                run_key=run_key,
                cause="called at the command line",
            )
        except RequestFailed as failure:
            if not target.json or failure.problem.run_id is None:
                raise
            output.show_json(failure.problem)
            return 1
    if target.json:
        output.show_json(answer)
    elif RunState(answer.state).final:
        output.show_json(answer.result)
    else:
        output.show(
            Text(
                f"run {answer.run_id} is {answer.state} after {timeout:g} s and goes on: "
                f"pubsubflow runs wait {answer.run_id}"
            )
        )
    return 0 if RunState(answer.state).final else 1
