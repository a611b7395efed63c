"""Triggers of Airflow on one event loop: each runs until its first event, for its client."""

import asyncio
import importlib
import json
import os
import socket
import sys
import threading
import traceback
from typing import Any

from airflow.sdk.execution_time import task_runner
from airflow.sdk.serde import deserialize, serialize
from airflow.triggers.base import BaseTaskEndEvent

from pubsubflow.airflow.inside.channel import Channel
from pubsubflow.airflow.inside.comms import ClientQuestions
from pubsubflow.airflow.inside.passing import Handed, receive_handed
from pubsubflow.airflow.protocol import (
    ClientRequest,
    TriggerEnd,
    TriggerOrder,
    decode_trigger_order,
)


class _LoopQuestions(ClientQuestions):
    """Answers the triggers of this process each by its own channel.

    Attributes:
        channels: asyncio task → channel.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self.channels: dict[Any, Channel] = {}

    def request(self, question: str, **arguments: Any) -> Any:
        """Request it of the client of the trigger that runs now; of any one, from a thread."""
        try:
            task: Any = asyncio.current_task()
        except RuntimeError:
            task = None
        channel = self.channels.get(task) or next(iter(self.channels.values()), None)
        return None if channel is None else channel.request(question, **arguments)


def serve_triggers(control: socket.socket, request: ClientRequest) -> None:
    """Run triggers for the clients that come by a stream, until the host closes it."""
    sys.path.insert(0, request.folder)
    asyncio.run(_serve(control))


async def _serve(control: socket.socket) -> None:
    questions = _LoopQuestions()
    task_runner.SUPERVISOR_COMMS = questions
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()
    closed = asyncio.Event()

    def begin(handed: Handed) -> None:
        task = loop.create_task(_run(handed, questions))
        running.add(task)
        task.add_done_callback(running.discard)

    def receive() -> None:
        while (handed := receive_handed(control)) is not None:
            loop.call_soon_threadsafe(begin, handed)
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=receive, name="clients", daemon=True).start()
    await closed.wait()
    if running:
        await asyncio.wait(running)


async def _run(handed: Handed, questions: _LoopQuestions) -> None:
    os.close(handed.take_output())
    channel = Channel(handed.sock)
    task = asyncio.current_task()
    questions.channels[task] = channel
    gone = asyncio.create_task(channel.closed())
    order = decode_trigger_order(handed.request.payload)
    events = _all_events(order, channel) if order.watch else _first_event(order)
    fired = asyncio.create_task(events)
    questions.channels[fired] = channel
    try:
        await asyncio.wait({gone, fired}, return_when=asyncio.FIRST_COMPLETED)
        if fired.done():
            channel.end(fired.result())
        else:
            fired.cancel()
            await asyncio.wait({fired})
    finally:
        gone.cancel()
        for each in (task, fired):
            questions.channels.pop(each, None)
        handed.close()


async def _first_event(order: TriggerOrder) -> TriggerEnd:
    trigger = None
    try:
        trigger = make_trigger(order)
        async for event in trigger.run():
            if isinstance(event, BaseTaskEndEvent):
                state = str(getattr(event.task_instance_state, "value", event.task_instance_state))
                pushed = {key: serialize(value) for key, value in (event.xcoms or {}).items()}
                return TriggerEnd(ends=state, pushed=pushed)
            return TriggerEnd(payload=serialize(event.payload))
        return TriggerEnd(error="the trigger ended without an event")
    except Exception as error:  # noqa: BLE001 - user code; becomes the failure of the wait
        return TriggerEnd(
            error=f"{type(error).__name__}: {error}",
            traceback=tuple(traceback.format_exception(error)),
        )
    finally:
        await _clean_up(trigger)


async def _all_events(order: TriggerOrder, channel: Channel) -> TriggerEnd:
    """Send each event of a trigger to its client; return its end."""
    trigger = None
    try:
        trigger = make_trigger(order)
        async for event in trigger.run():
            plain = json.loads(json.dumps(event.payload, default=str))
            channel.send(TriggerEnd(plain=plain, more=True))
        return TriggerEnd(error="the trigger ended")
    except Exception as error:  # noqa: BLE001 - user code; the client starts it again
        return TriggerEnd(
            error=f"{type(error).__name__}: {error}",
            traceback=tuple(traceback.format_exception(error)),
        )
    finally:
        await _clean_up(trigger)


def make_trigger(order: TriggerOrder) -> Any:
    """Return the trigger of an order.

    Raises:
        ImportError: Its class is not there; likewise AttributeError and TypeError.
    """
    module, _, name = order.classpath.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    return kind(**{key: deserialize(value) for key, value in order.kwargs.items()})


async def _clean_up(trigger: Any) -> None:
    if trigger is not None:
        try:
            await trigger.cleanup()
        except Exception:  # noqa: BLE001 - ignored, as in Airflow
            traceback.print_exc()
