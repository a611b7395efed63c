"""Triggers of a third party, found by their entry points."""

import asyncio
import ctypes
import json
import os
import re
import subprocess
import time
from datetime import datetime

from pubsubflow.errors import TriggerError
from pubsubflow.model.triggers import Trigger, TriggerEvent


def encode_line(**fields):
    return json.dumps(fields).encode() + b"\n"


class Remote(Trigger, frozen=True, kw_only=True):
    """Executes commands that come over a socket, and reports there what it did."""

    path: str
    label: str = ""
    share: str | None = None

    def share_key(self):
        return self.share

    async def run(self, ctx):
        reader, writer = await asyncio.open_unix_connection(self.path)

        def report(what, **fields):
            writer.write(encode_line(label=self.label, what=what, pid=os.getpid(), **fields))

        report("started", position=ctx.position, at=ctx.started_at.timestamp())
        try:
            async for line in reader:
                command = json.loads(line)
                kind = command.pop("do")
                if kind == "fire":
                    yield self._event(command, report)
                    report("resumed")
                elif kind == "end":
                    return
                elif kind == "yield":
                    yield command["value"]
                else:
                    acts = {"connection": self._connect, "start": self._start}
                    act = acts.get(kind, self._act)
                    report("done", result=await act(kind, command, ctx))
        finally:
            report("closed")
            writer.close()

    def _event(self, command, report):
        async def acknowledge():
            report("acknowledged", id=command.get("id"))
            if command.get("deaf"):
                raise OSError("the source is deaf")

        fields = {name: command.get(name) for name in ("payload", "id", "partition", "position")}
        when = command.get("time")
        if "large" in command:
            fields["payload"] = "x" * command["large"]
        return TriggerEvent(
            **fields,
            time=None if when is None else datetime.fromisoformat(when),
            acknowledge=acknowledge,
        )

    async def _act(self, kind, command, ctx):
        if kind == "raise":
            raise TriggerError(command["text"])
        if kind == "log":
            ctx.log("remote.logged", text="hello", level=1)
        elif kind == "trouble":
            ctx.trouble(command["error"])
        elif kind == "block":
            time.sleep(command["seconds"])  # noqa: ASYNC251 - that is the point
        elif kind == "block_beside":
            await asyncio.create_task(self._block(command["seconds"]))
        elif kind == "spin":
            while True:
                pass
        elif kind == "hold":  # C code that keeps the GIL
            re.match(r"(a+)+$", "a" * 64 + "b")
        elif kind == "crash":
            ctypes.string_at(0)

    async def _start(self, _kind, _command, _ctx):
        """Start a process in a session of its own from a thread, and one by asyncio."""
        options = {"start_new_session": True}
        detached = await asyncio.to_thread(subprocess.Popen, ["sleep", "600"], **options)
        beside = await asyncio.create_subprocess_exec("sleep", "600")
        return [detached.pid, beside.pid]

    async def _connect(self, _kind, command, ctx):
        found = await ctx.connection(command["name"])
        ctx.log("remote.connected", password=found.password, url=found.url)
        if command.get("fail"):
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
