"""Answers to the questions of Airflow's triggers, which look at runs, tasks and variables."""

from collections.abc import Callable

import anyio
import structlog

from pubsubflow.errors import ConfigError, Unavailable
from pubsubflow.model.wire.messages import encode
from pubsubflow.store.questions.answers import TaskQuestionQueries
from pubsubflow.triggerer.protocol import TriggerAnswer, TriggerQuestion

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0


class TriggerAnswers:
    """Answers the host's questions.

    Args:
        queries: The store; without it they are refused.
        send: Sends an answer to the host.
    """

    def __init__(
        self, queries: TaskQuestionQueries | None, send: Callable[[TriggerAnswer], None]
    ) -> None:
        self._queries = queries
        self._send = send

    async def reply(self, question: TriggerQuestion) -> None:
        """Answer a question, once the store is reached."""
        address = (question.loop, question.request, question.trigger_id)
        if self._queries is None or not self._queries.knows(question.question):
            kind = type(question.question).__name__
            self._send(TriggerAnswer(*address, error=f"a trigger cannot do this: {kind}"))
            return
        while True:
            try:
                found = encode(await self._queries.answer(question.question))
            except Unavailable as error:
                log.warning("triggerer.store_lost", reason=str(error))
                await anyio.sleep(_RETRY_SECONDS)
                continue
            except ConfigError as error:
                self._send(TriggerAnswer(*address, error=str(error)))
            else:
                self._send(TriggerAnswer(*address, found))
            return
