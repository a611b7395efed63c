"""A Docker engine that speaks the API; its containers print the same lines."""

import asyncio
import json
from contextlib import asynccontextmanager

from aiohttp import web

from pubsubflow.model.connections import make_connection
from support.web_server import served


class Engine:
    """A Docker engine that speaks the API and runs commands as what they print."""

    def __init__(self):
        self.calls = []
        self.containers = {}
        self.images = {"here"}
        self.exit_code = 0
        self.running = asyncio.Event()
        self.stopped = asyncio.Event()

    def routes(self):
        prefix = "/v1.44/containers"
        yield web.get("/v1.44/version", self.version)
        yield web.get(f"{prefix}/json", self.list)
        yield web.post("/v1.44/images/create", self.pull)
        yield web.post(f"{prefix}/create", self.create)
        yield web.post(f"{prefix}/{{id}}/{{verb}}", self.act)
        yield web.get(f"{prefix}/{{id}}/logs", self.logs)
        yield web.get(f"{prefix}/{{id}}/json", self.inspect)
        yield web.delete(f"{prefix}/{{id}}", self.remove)

    async def list(self, request):
        label = json.loads(request.query["filters"])["label"][0]
        name, _, value = label.partition("=")
        found = [
            {"Id": key}
            for key, spec in self.containers.items()
            if spec["Labels"].get(name) == value
        ]
        return web.json_response(found)

    async def version(self, _):
        return web.json_response({"Version": "29.0"})

    async def pull(self, request):
        name = request.query["fromImage"]
        self.calls.append(f"pull {name}")
        self.images.add(name.removesuffix(":latest"))
        return web.Response(text='{"status": "done"}\n')

    async def create(self, request):
        spec = await request.json()
        if spec["Image"] not in self.images:
            return web.json_response({"message": "No such image"}, status=404)
        key = f"c{len(self.containers)}"
        self.containers[key] = spec
        return web.json_response({"Id": key}, status=201)

    async def act(self, request):
        verb = request.match_info["verb"]
        self.calls.append(verb)
        if verb == "stop":
            self.stopped.set()
        if verb == "wait":
            return web.json_response({"StatusCode": self.exit_code})
        return web.Response(status=204)

    async def logs(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        for stream, line in ((1, b"one\ntw"), (2, b"oops\n"), (1, b"o\n")):
            await response.write(bytes([stream, 0, 0, 0]) + len(line).to_bytes(4, "big") + line)
        self.running.set()
        if self.exit_code is None:
            await self.stopped.wait()
        return response

    async def inspect(self, _):
        return web.json_response({"State": {"OOMKilled": self.exit_code == 137}})

    async def remove(self, _):
        self.calls.append("remove")
        return web.Response(status=204)


@asynccontextmanager
async def docker_engine(socket=None):
    """Serve an engine; gives it and a connection to it."""
    engine = Engine()
    async with served(*engine.routes(), socket=socket) as uri:
        yield engine, make_connection("docker", uri=uri, kind="docker")
