"""The operator that runs a container."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import anyio

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.errors import InvalidInput, PubsubflowError, TaskSkipped
from pubsubflow.hooks.connection import read_connection
from pubsubflow.hooks.container import Container, parse_bytes
from pubsubflow.hooks.docker import DockerFailed, DockerHook
from pubsubflow.model.connections import Connection

_LABEL = "org.pubsubflow.attempt"
_NO_IMAGE = 404
_CLEAN_UP_SECONDS = 15


class ContainerFailed(PubsubflowError):  # noqa: N818 - the container's end
    """A container ended with a code other than 0.

    Args:
        code: Its exit code.
        reason: What else the engine says of its end.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(
            f"the container ended with exit code {code}{reason}; its output is in the log"
        )
        self.code = code


class DockerOperator(Operator):
    """Runs a container; the last line that it prints is the result.

    Its output goes into the task's log as it comes. A task that is cancelled stops its container.
    When a worker dies, the container goes on, and the worker that gets the task adopts it.

    Args:
        image: The image.
        command: Its command: a list, or a string that the image's shell reads.
        environment: Variables of the container.
        entrypoint: In place of the image's.
        mounts: Bind mounts, `/host/path:/container/path[:ro]`.
        working_dir: Folder in which the command runs.
        user: The user, or `uid:gid`.
        network: The network to join.
        memory: Limit, such as `512m`.
        cpus: Limit, such as 1.5.
        pull: `missing`, `always`, `never`.
        auto_remove: Whether to remove the container when it has ended.
        skip_on_exit_code: Codes that skip the task.
        stop_seconds: How long the container may take to stop, before it is killed.
        connection: A connection of type `docker`; this machine's engine if left out.
    """

    template_fields = ("image", "command", "environment", "mounts", "working_dir")
    shell_fields = ("command",)

    def __init__(
        self,
        *,
        image: str,
        command: str | Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        entrypoint: Sequence[str] | None = None,
        mounts: Sequence[str] = (),
        working_dir: str | None = None,
        user: str | None = None,
        network: str | None = None,
        memory: str | int | None = None,
        cpus: float | None = None,
        pull: Literal["missing", "always", "never"] = "missing",
        auto_remove: bool = True,
        skip_on_exit_code: int | Sequence[int] = 99,
        stop_seconds: int = 10,
        connection: str | Connection | None = None,
        **kwargs: Any,
    ) -> None:
        self.image, self.command, self.environment = image, command, dict(environment or {})
        self.entrypoint, self.mounts, self.working_dir = entrypoint, list(mounts), working_dir
        self.user, self.network, self.cpus = user, network, cpus
        try:
            self.memory = None if memory is None else parse_bytes(memory)
        except InvalidInput as error:
            text = f"memory={memory!r}: {error}"
            raise definition_error(text, task_id=kwargs.get("task_id")) from None
        self.pull, self.auto_remove, self.stop_seconds = pull, auto_remove, stop_seconds
        codes = skip_on_exit_code
        self.skip_on_exit_code = (codes,) if isinstance(codes, int) else tuple(codes)
        self.connection = connection
        super().__init__(**kwargs)

    async def execute(self, ctx: Context) -> str:
        """Run the container."""
        given = self.connection
        connection = None if given is None else await read_connection(ctx, given)
        async with DockerHook(connection) as docker:
            container = await self._find_or_create(ctx, docker)
            try:
                await docker.start(container)
                last = ""
                async for is_error, line in docker.logs(container):
                    (sys.stderr if is_error else sys.stdout).write(f"{line}\n")
                    last = last if is_error else line
                code = await docker.wait(container)
                reason = await docker.reason(container)
            except BaseException:
                with anyio.move_on_after(self.stop_seconds + _CLEAN_UP_SECONDS, shield=True):
                    await docker.stop(container, self.stop_seconds)
                    await docker.remove(container)
                raise
            if self.auto_remove:
                await docker.remove(container)
        if code in self.skip_on_exit_code:
            raise TaskSkipped(f"the container ended with exit code {code}")
        if code:
            raise ContainerFailed(code, reason)
        return last

    async def _find_or_create(self, ctx: Context, docker: DockerHook) -> str:
        """Return this attempt's container; it exists if another worker died beside it."""
        task = f"{ctx.run.run_id}/{ctx.task.task_id}/{ctx.task.map_index}/{ctx.attempt}"
        found = await docker.find(f"{_LABEL}={task}")
        if found is not None:
            ctx.log.info("container.adopted", container=found[:12])
            return found
        if self.pull == "always":
            await docker.pull(self.image)
        spec = self._container(ctx, task)
        try:
            made = await docker.create(spec)
        except DockerFailed as error:
            if error.status != _NO_IMAGE or self.pull != "missing":
                raise
            await docker.pull(self.image)
            made = await docker.create(spec)
        ctx.log.info("container.created", container=made[:12], image=self.image)
        return made

    def _container(self, ctx: Context, task: str) -> Container:
        trace = {name.upper(): text for name, text in ctx.trace.items()}
        return Container(
            image=self.image,
            command=self.command,
            entrypoint=self.entrypoint,
            environment={**trace, **self.environment},
            working_dir=self.working_dir,
            user=self.user,
            labels={_LABEL: task, "org.pubsubflow.dag": ctx.run.dag_id},
            mounts=self.mounts,
            network=self.network,
            memory_bytes=self.memory,
            cpus=self.cpus,
        )
