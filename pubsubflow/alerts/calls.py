"""Calls of callbacks: each in a child process, under a time limit, tried again when it fails."""

from collections.abc import Callable
from datetime import datetime

import anyio
import msgspec
import structlog
from msgspec.structs import replace

from pubsubflow.alerts.bundles import CallbackBundles
from pubsubflow.alerts.settings import AlertSettings
from pubsubflow.child_calls.messages import CallbackLine, CallbackReply, CallbackRequest
from pubsubflow.child_calls.parent import ChildLines, call_in_child
from pubsubflow.errors import ConfigError, NotFound, SecretsUnavailable, Unavailable
from pubsubflow.exit_codes import describe_exit
from pubsubflow.model.callbacks import CallbackFacts, CallbackState, next_try
from pubsubflow.model.connections import MASK
from pubsubflow.model.source.bundles import DagSource
from pubsubflow.runner.task_account import TaskAccount
from pubsubflow.store.alerts.calls import CallbackStore, ClaimedCallback
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.variables import Variables

log = structlog.get_logger()

CLAIM_SECONDS = 12.0
_RENEW_SECONDS = 3.0
_OUTPUT_CHARACTERS = 64 * 1024
_TARGET = "pubsubflow.child_calls.callback:run_callback"
_decode = msgspec.json.Decoder(CallbackLine).decode


class CallbackCaller:
    """Carries out claimed calls.

    Args:
        store: Where they are ended.
        bundles: The code of DAG files.
        connections: What callbacks may read.
        variables: Likewise.
        settings: Time limit and tries.
        account: The account of the processes; None for the daemon's own.
        now: The time.
    """

    def __init__(
        self,
        store: CallbackStore,
        bundles: CallbackBundles,
        connections: Connections,
        variables: Variables,
        *,
        settings: AlertSettings,
        account: TaskAccount | None,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._bundles = bundles
        self._connections = connections
        self._variables = variables
        self._settings = settings
        self._account = account
        self._now = now

    async def call(self, callback: ClaimedCallback) -> bool:
        """Carry out a call and record its end; return whether it has failed for good.

        Raises:
            Unavailable: Postgres is away; the claim ends by itself.
        """
        output = _CallOutput()
        error: str | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep, callback, output, group.cancel_scope)
            error = await self._try(callback, output)
            group.cancel_scope.cancel()
        # Another daemon has claimed it: what it comes to there counts.
        if output.lost:
            return False
        return await self._end(callback, error, output)

    async def _end(
        self, callback: ClaimedCallback, error: str | None, output: "_CallOutput"
    ) -> bool:
        again, state = None, CallbackState.SUCCESS
        if error is not None:
            again = next_try(
                callback.tries,
                retries=self._settings.retries,
                delay_seconds=self._settings.retry_delay_seconds,
                now=self._now(),
            )
            state = CallbackState.FAILED if again is None else CallbackState.QUEUED
        text = None if error is None else output.masked(error)
        counted = await self._store.end(callback, state, text, output.text, again)
        fields = {"callback": callback.id, "name": callback.name, "tries": callback.tries}
        if error is None:
            log.info("alerts.called", **fields)
        else:
            log.warning("alerts.call_failed", **fields, error=text, again_at=str(again))
        return counted and state is CallbackState.FAILED

    async def _keep(
        self, callback: ClaimedCallback, output: "_CallOutput", scope: anyio.CancelScope
    ) -> None:
        while True:
            await anyio.sleep(_RENEW_SECONDS)
            try:
                if not await self._store.renew(callback, CLAIM_SECONDS):
                    output.lost = True
                    scope.cancel()
                    return
            except Unavailable as error:
                log.debug("alerts.renewal_postponed", reason=str(error))

    async def _try(self, callback: ClaimedCallback, output: "_CallOutput") -> str | None:
        """Return why the call failed, or None."""
        try:
            request = await self._request(callback)
        except (LookupError, OSError) as error:
            return str(error)
        seconds = self._settings.timeout_seconds
        async with call_in_child(_TARGET, request, seconds, self._account) as lines:
            try:
                with anyio.fail_after(seconds):
                    async for line in lines:
                        found = _decode(line)
                        if found.ended:
                            return found.error
                        await self._answer(found, lines, output, callback.facts.dag_id)
                    code = await lines.wait()
            except TimeoutError:
                return f"it took longer than {seconds:g} s"
        return f"it ended its process: {describe_exit(code)}"

    async def _request(self, callback: ClaimedCallback) -> CallbackRequest:
        if callback.bundle is not None and callback.file is not None:
            folder, manifest = await self._bundles.open(callback.bundle)
            return CallbackRequest(
                folder, manifest.root, callback.file, callback.facts, manifest.kind
            )
        source = await self._bundles.source(callback.source)
        folder, manifest = await self._bundles.open(source.bundle)
        return CallbackRequest(
            folder,
            manifest.root,
            source.file,
            _named(callback.facts, source),
            manifest.kind,
            source.variables,
        )

    async def _answer(
        self, line: CallbackLine, lines: ChildLines, output: "_CallOutput", dag_id: str | None
    ) -> None:
        if line.output is not None:
            output.add(line.output)
            return
        try:
            if line.connection is not None:
                connection = await self._connections.read_for(line.connection, dag_id, "a dataset")
                output.secrets |= connection.redacted_values()
                lines.send(CallbackReply(connection=connection))
            elif line.variable is not None:
                variable = await self._variables.read(line.variable)
                if variable.secret:
                    output.secrets.add(variable.text)
                lines.send(CallbackReply(variable=variable))
        except NotFound as error:
            if line.connection is None:
                lines.send(CallbackReply())
                return
            remedy = f"set it with `pubsubflow connections set {line.connection}`"
            lines.send(CallbackReply(error=f"{error}: {remedy}"))
        except (ConfigError, SecretsUnavailable) as error:
            lines.send(CallbackReply(error=str(error)))


class _CallOutput:
    """The output of a call, with secrets masked."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.lost = False
        self._lines: list[str] = []
        self._left = _OUTPUT_CHARACTERS

    def add(self, line: str) -> None:
        if self._left > 0:
            self._lines.append(line[: self._left])
            self._left -= len(line) + 1

    @property
    def text(self) -> str:
        return self.masked("\n".join(self._lines))

    def masked(self, text: str) -> str:
        for secret in sorted(filter(None, self.secrets), key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text


def _named(facts: CallbackFacts, source: DagSource) -> CallbackFacts:
    """Return the facts with the names of failed tasks."""
    names = {task.node: task.task_id for task in source.tasks}
    failed = tuple(replace(each, task_id=names.get(each.node, "")) for each in facts.failed)
    return replace(facts, failed=failed)
