"""Runs triggers beside a test and signals their progress, so that tests need not sleep."""

from contextlib import aclosing, asynccontextmanager

import anyio

from pubsubflow.testing.triggers import PATIENCE_SECONDS, TrialContext, first_events


class Watched(TrialContext):
    """A context that keeps the events of its trigger, and counts them as `fired`."""

    def __init__(self, **given):
        super().__init__(**given)
        self.events = []

    def fired(self, event):
        self.events.append(event)
        self._count("fired")


@asynccontextmanager
async def beside(trigger, count=1, **given):
    """Run a trigger beside the block; its context's `events` are complete when that has ended."""
    ctx = Watched(**given)

    async def run():
        async with aclosing(trigger.run(ctx)) as events:
            async for event in events:
                if event.acknowledge is not None:
                    await event.acknowledge()
                ctx.fired(event)
                if len(ctx.events) == count:
                    return

    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as group:
            ctx.stop = group.cancel_scope.cancel
            group.start_soon(run)
            yield ctx


async def fired(trigger, count=1, **given):
    """Return the first events of a trigger."""
    with anyio.fail_after(PATIENCE_SECONDS):
        return await first_events(trigger, count, ctx=Watched(**given))


async def payloads(trigger, count=1, **given):
    return [event.payload for event in await fired(trigger, count, **given)]
