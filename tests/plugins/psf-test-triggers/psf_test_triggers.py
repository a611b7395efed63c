"""Triggers of a third party, found by their entry points."""

import asyncio
import ctypes
import json
import os
import re
import time
from datetime import datetime

from pubsubflow.errors import TriggerError
from pubsubflow.model.triggers import Trigger, TriggerEvent


def encode_line(**fields):
    return json.dumps(fields).encode() + b"\n"


class Remote(Trigger, frozen=True, kw_only=True):
    """Does what is asked for over a socket, and tells there what is done with it."""

    path: str
    label: str = ""
    share: str | None = None

    def share_key(self):
        return self.share

    async def run(self, ctx):
        reader, writer = await asyncio.open_unix_connection(self.path)

        def say(what, **fields):
            writer.write(encode_line(label=self.label, what=what, pid=os.getpid(), **fields))

        say("started", position=ctx.position, at=ctx.started_at.timestamp())
        try:
            async for line in reader:
                order = json.loads(line)
                kind = order.pop("do")
                if kind == "fire":
                    yield self._event(order, say)
                    say("asked")
                elif kind == "end":
                    return
                elif kind == "yield":
                    yield order["value"]
                else:
                    act = self._connect if kind == "connection" else self._act
                    say("done", told=await act(kind, order, ctx))
        finally:
            say("closed")
            writer.close()

    def _event(self, order, say):
        async def acknowledge():
            say("acknowledged", id=order.get("id"))
            if order.get("deaf"):
                raise OSError("the source is deaf")

        fields = {name: order.get(name) for name in ("payload", "id", "partition", "position")}
        when = order.get("time")
        if "large" in order:
            fields["payload"] = "x" * order["large"]
        return TriggerEvent(
            **fields,
            time=None if when is None else datetime.fromisoformat(when),
            acknowledge=acknowledge,
        )

    async def _act(self, kind, order, ctx):
        if kind == "raise":
            raise TriggerError(order["text"])
        if kind == "log":
            ctx.log("remote.said", text="hello", level=1)
        elif kind == "block":
            time.sleep(order["seconds"])  # noqa: ASYNC251 - that is the point
        elif kind == "block_beside":
            await asyncio.create_task(self._block(order["seconds"]))
        elif kind == "spin":
            while True:
                pass
        elif kind == "hold":  # C code that does not let go of the interpreter
            re.match(r"(a+)+$", "a" * 64 + "b")
        elif kind == "crash":
            ctypes.string_at(0)

    async def _connect(self, _kind, order, ctx):
        found = await ctx.connection(order["name"])
        ctx.log("remote.connected", password=found.password, url=found.url)
        if order.get("fail"):
            raise TriggerError(f"it does not like {found.password}")
        return found.secrets

    async def _block(self, seconds):
        time.sleep(seconds)  # noqa: ASYNC251

    async def cancelled(self, ctx):  # noqa: ARG002
        _, writer = await asyncio.open_unix_connection(self.path)
        writer.write(encode_line(label=self.label, what="cancelled", pid=os.getpid()))
        writer.close()
        if self.label == "crashes":
            ctypes.string_at(0)
        if self.label == "fails":
            raise OSError("cannot clean up")


class Nap(Trigger, frozen=True, kw_only=True):
    """Fires after so many seconds."""

    seconds: float

    async def run(self, ctx):
        await ctx.sleep(self.seconds)
        yield TriggerEvent("slept")
