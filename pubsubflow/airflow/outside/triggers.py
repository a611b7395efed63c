"""The trigger of Airflow's triggers: it waits for one that runs in the bundle's interpreter."""

from collections.abc import AsyncIterator
from typing import Any

from pubsubflow.airflow.outside.answers import connection_fields
from pubsubflow.airflow.outside.client import HostUnreachable, attempt_client
from pubsubflow.airflow.outside.place import host_address
from pubsubflow.airflow.outside.questions import plain, question_of
from pubsubflow.airflow.protocol import (
    ClientRequest,
    Question,
    TriggerEnd,
    TriggerOrder,
    encode,
)
from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import AnswersQuestions, Trigger, TriggerContext, TriggerEvent
from pubsubflow.model.wire.task_questions import ReadVariable, TaskQuestion

_RETRY_SECONDS = 1.0


class AirflowTrigger(Trigger, frozen=True, kw_only=True):
    """Fires with the first event of a trigger of Airflow.

    Attributes:
        bundle: Name of the bundle in whose interpreter it runs.
        root: The folder of the bundle, where triggers of the team are found.
        classpath: Its class.
        kwargs: Its arguments, as Airflow serialises them.
        watch: Whether it watches an asset: each of its events is one of that.
    """

    bundle: str
    root: str
    classpath: str
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    watch: bool = False

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield the event, or each one; the process of triggers is started again when it ends.

        Raises:
            TriggerError: The trigger failed, or this triggerer has no such bundle.
        """
        order = encode(TriggerOrder(self.classpath, self.kwargs, watch=self.watch))
        request = ClientRequest("trigger", self.root, self.root, "", payload=order)

        async def answer(question: Question) -> Any:
            return await _answer(ctx, question)

        while True:
            try:
                address = host_address(self.bundle)
                async with attempt_client(address, request, _ignore) as client:
                    found = await client.exchange(answer)
                    while isinstance(found, TriggerEnd) and found.more:
                        ctx.trouble(None)
                        yield TriggerEvent(_watched(found))
                        found = await client.exchange(answer)
            except DefinitionError as error:
                raise TriggerError(error.message) from error
            except HostUnreachable as error:
                ctx.trouble(str(error))
                await ctx.sleep(_RETRY_SECONDS)
                continue
            ctx.trouble(None)
            yield _event(found)
            return


def _watched(found: TriggerEnd) -> dict[str, Any]:
    """Return the `extra` of an asset's event, as Airflow gives it to what a watcher sees."""
    return {"from_trigger": True, "payload": found.plain}


def _event(found: object) -> TriggerEvent:
    if not isinstance(found, TriggerEnd):
        raise TriggerError(f"a trigger ended with {type(found).__name__}")
    if found.error is not None:
        error = TriggerError(found.error)
        error.add_note("".join(found.traceback))
        raise error
    payload = {"payload": found.payload, "ends": found.ends, "pushed": found.pushed}
    return TriggerEvent(payload=payload)


async def _answer(ctx: TriggerContext, question: Question) -> Any:
    fields = dict(question.arguments)
    if question.name == "fact":
        return plain(await _fact(ctx, question_of(fields.pop("kind"), fields)))
    if question.name == "variable":
        found = await _fact(ctx, ReadVariable(fields["name"]))
        return None if found is None else found.text
    if question.name == "asset":
        return None
    if question.name != "connection":
        raise TriggerError(f"a trigger has no answer to this: {question.name}")
    try:
        return connection_fields(await ctx.connection(question.arguments["name"]))
    except TriggerError:
        return None


async def _fact(ctx: TriggerContext, question: TaskQuestion) -> Any:
    if not isinstance(ctx, AnswersQuestions):
        raise TriggerError("a test knows of no other runs, and of no variables for triggers")
    return await ctx.answer(question)


def _ignore(_: str) -> None:
    """Drop a line: triggers have no output of their own."""
