"""Runs triggers in tests."""

from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow.testing.clock import JumpingClock


async def first_events(
    trigger: Trigger, count: int = 1, *, ctx: TriggerContext | None = None
) -> list[TriggerEvent]:
    """Run a trigger until it has fired so many times, and return what it saw.

    Args:
        trigger: The trigger.
        count: Number of events; fewer come back when the trigger ends before.
        ctx: What it runs with; a JumpingClock when left out, so it never waits for time.
    """
    found: list[TriggerEvent] = []
    events = trigger.run(ctx or JumpingClock())
    try:
        while len(found) < count:
            found.append(await anext(events))
    except StopAsyncIteration:
        return found
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
    return found
