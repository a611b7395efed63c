"""What all ways of posting events have in common."""

from aiohttp import web

from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.responses import answer
from pubsubflow.model.api.resources import PostedEvents
from pubsubflow.model.wire.commands import Calls, PostEvents, Recorded


def check_count(count: int, most: int) -> None:
    """Refuse more events than one request may hold.

    Raises:
        BadRequest: They are too many.
    """
    if count > most:
        raise BadRequest(
            f"{count} events are too many for one request: send at most {most} at a time",
            status=413,
        )


async def record(call: PostEvents, calls: Calls) -> web.Response:
    """Record events and answer once they are durable.

    202 with their ids; 200 when all of them had been posted before under the same keys.
    """
    recorded: list[Recorded] = await calls.call(call) if call.events else []
    duplicates = [index for index, each in enumerate(recorded) if each.duplicate]
    ids = [str(each.event_id) for each in recorded]
    return answer(
        PostedEvents(ids=ids, duplicates=duplicates),
        status=202 if len(duplicates) < len(ids) else 200,
    )
