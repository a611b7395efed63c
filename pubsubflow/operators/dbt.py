"""The operator that runs dbt; each model is an event of its own, the moment it is built."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.errors import PubsubflowError
from pubsubflow.hooks.dbt import DbtEvent, dbt_process

_BUILT = frozenset({"model", "seed", "snapshot"})
_FAILED = frozenset({"error", "fail", "runtime error"})


class DbtFailed(PubsubflowError):  # noqa: N818 - dbt's end
    """Models or tests failed, or dbt itself did.

    Args:
        code: dbt's exit code.
        failed: The nodes that failed: their ids, with what dbt says of each.
    """

    def __init__(self, code: int, failed: Mapping[str, str]) -> None:
        what = "; ".join(f"{node}: {text}" for node, text in failed.items())
        super().__init__(what or f"dbt ended with exit code {code}; its output is in the log")
        self.code = code
        self.failed = dict(failed)


class DbtOperator(Operator):
    """Runs dbt; the result is node → status.

    With `datasets`, each model, seed and snapshot is an event of `<datasets>/<schema>/<alias>` the
    moment it is built, so DAGs that subscribe to it start while dbt goes on. A test that fails, or
    a model, fails the task.

    Args:
        project_dir: The project.
        command: `build`, `run`, `test`, `seed`, `snapshot`, or a list with further arguments.
        select: What to build, as dbt selects it.
        exclude: What to leave out.
        profiles_dir: Where `profiles.yml` is; in the project if left out.
        target: The profile's target.
        vars: Variables of the project.
        env: Variables added to those of the worker, such as passwords that the profile reads.
        full_refresh: Whether incremental models are made anew.
        datasets: `<adapter>://<host>/<database>`, such as `postgres://db.example.com/sales`.
        executable: The program.
    """

    template_fields = ("project_dir", "command", "select", "exclude", "target", "vars", "env")

    def __init__(
        self,
        *,
        project_dir: str,
        command: str | Sequence[str] = "build",
        select: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        profiles_dir: str | None = None,
        target: str | None = None,
        vars: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        full_refresh: bool = False,
        datasets: str | None = None,
        executable: str = "dbt",
        **kwargs: Any,
    ) -> None:
        self.project_dir, self.profiles_dir, self.target = project_dir, profiles_dir, target
        self.command, self.select, self.exclude = command, select, exclude
        self.vars, self.env, self.full_refresh = dict(vars or {}), dict(env or {}), full_refresh
        self.datasets, self.executable = datasets and datasets.rstrip("/"), executable
        if datasets and "outlets" not in kwargs:
            kwargs["outlets"] = [Dataset.match(f"{self.datasets}/*/*")]
        super().__init__(**kwargs)

    async def execute(self, ctx: Context) -> dict[str, str]:
        """Run dbt, and publish what it builds."""
        statuses: dict[str, str] = {}
        failed: dict[str, str] = {}
        command = (self.executable, *self._arguments())
        async with dbt_process(command, folder=self.project_dir, env=self.env) as dbt:
            async for event in dbt:
                if event.text:
                    (sys.stderr if event.is_error else sys.stdout).write(f"{event.text}\n")
                if event.node and event.is_result:
                    statuses[event.node] = event.status
                    if event.status in _FAILED:
                        failed[event.node] = event.text
                    await self._publish(ctx, event)
            code = await dbt.wait()
        if code:
            raise DbtFailed(code, failed)
        return statuses

    async def _publish(self, ctx: Context, event: DbtEvent) -> None:
        if not self.datasets or event.kind not in _BUILT or event.status != "success":
            return
        uri = f"{self.datasets}/{event.schema}/{event.alias}"
        extra = {"node": event.node, "materialized": event.materialized, "relation": event.relation}
        # Under a key: a worker that dies and runs the attempt again publishes nothing twice.
        await ctx.publish(uri, extra=extra, key=f"{ctx.attempt}.{event.node}"[-100:])

    def _arguments(self) -> list[str]:
        words = [self.command] if isinstance(self.command, str) else list(self.command)
        words += ["--profiles-dir", self.profiles_dir or "."]
        for flag, given in (("--select", self.select), ("--exclude", self.exclude)):
            chosen = given.split() if isinstance(given, str) else list(given)
            words += [flag, *chosen] if chosen else []
        words += ["--target", self.target] if self.target else []
        words += ["--vars", msgspec.json.encode(self.vars).decode()] if self.vars else []
        return [*words, "--full-refresh"] if self.full_refresh else words
