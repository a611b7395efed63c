"""The operator that runs dbt; each model is an event of its own, the moment it is built."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
import msgspec
from msgspec import Struct

from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.errors import ConfigError, PubsubflowError

_STOP_SECONDS = 20
_LINE_BYTES = 16 << 20
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
        process = await self._start()
        try:
            while process.stdout is not None and (line := await process.stdout.readline()):
                event = _decode_line(line)
                if event is None:
                    sys.stdout.write(line.decode(errors="replace"))
                    continue
                if event.text:
                    (sys.stderr if event.is_error else sys.stdout).write(f"{event.text}\n")
                if event.node and event.is_result:
                    statuses[event.node] = event.status
                    if event.status in _FAILED:
                        failed[event.node] = event.text
                    await self._publish(ctx, event)
            code = await process.wait()
        finally:
            await _end(process)
        if code:
            raise DbtFailed(code, failed)
        return statuses

    async def _publish(self, ctx: Context, event: "DbtEvent") -> None:
        if not self.datasets or event.kind not in _BUILT or event.status != "success":
            return
        uri = f"{self.datasets}/{event.schema}/{event.alias}"
        extra = {"node": event.node, "materialized": event.materialized, "relation": event.relation}
        # Under a key: a worker that dies and runs the attempt again publishes nothing twice.
        await ctx.publish(uri, extra=extra, key=f"{ctx.attempt}.{event.node}"[-100:])

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *(self.executable, "--log-format", "json", "--no-use-colors", *self._arguments()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self.project_dir,
                env={**os.environ, **self.env},
                limit=_LINE_BYTES,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ConfigError(
                f"{error.filename} is not there: pip install 'pubsubflow[dbt]' and the adapter of "
                "your database, or name dbt with executable="
            ) from error

    def _arguments(self) -> list[str]:
        words = [self.command] if isinstance(self.command, str) else list(self.command)
        words += ["--profiles-dir", self.profiles_dir or "."]
        for flag, given in (("--select", self.select), ("--exclude", self.exclude)):
            chosen = given.split() if isinstance(given, str) else list(given)
            words += [flag, *chosen] if chosen else []
        words += ["--target", self.target] if self.target else []
        words += ["--vars", msgspec.json.encode(self.vars).decode()] if self.vars else []
        return [*words, "--full-refresh"] if self.full_refresh else words


class DbtEvent(Struct, frozen=True, kw_only=True):
    """An event of dbt's structured log, as far as the task reads it.

    Attributes:
        text: Its line for people.
        is_error: Whether it reports an error.
        is_result: Whether a node has ended.
        node: The node's id; empty for an event of none.
        kind: `model`, `test`, `seed`, `snapshot` and others.
    """

    text: str
    is_error: bool
    is_result: bool = False
    node: str = ""
    kind: str = ""
    status: str = ""
    materialized: str = ""
    schema: str = ""
    alias: str = ""
    relation: str = ""


def _decode_line(line: bytes) -> DbtEvent | None:
    """Return the event in a line; None for a line of another form."""
    try:
        found = msgspec.json.decode(line, type=dict[str, dict[str, Any]])
        info, data = found["info"], found["data"]
    except (msgspec.DecodeError, KeyError):
        return None
    node = data.get("node_info") or {}
    relation = node.get("node_relation") or {}
    name = str(info.get("name", ""))
    return DbtEvent(
        text=str(info.get("msg", "")),
        is_error=info.get("level") == "error",
        is_result=name.startswith("Log") and name.endswith("Result"),
        node=str(node.get("unique_id", "")),
        kind=str(node.get("resource_type", "")),
        status=str(node.get("node_status", "")),
        materialized=str(node.get("materialized", "")),
        schema=str(relation.get("schema", "")),
        alias=str(relation.get("alias", "")),
        relation=str(relation.get("relation_name", "")),
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Stop dbt with all that it started, if it has not ended: it cancels its queries at SIGINT."""
    if process.returncode is not None:
        return
    with anyio.CancelScope(shield=True):
        for sign, patience in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with anyio.move_on_after(patience):
                await process.wait()
                return
