"""An OTLP/HTTP collector that keeps what it gets."""

from contextlib import asynccontextmanager

import anyio
from aiohttp import web
from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

FAR = f"00-{'a' * 32}-{'b' * 16}-01"
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"


class Taken(Struct, frozen=True):
    """A span as it arrived."""

    name: str
    kind: int
    trace: str
    span: str
    parent: str
    state: str
    links: tuple[tuple[str, str], ...]
    facts: dict
    resource: dict
    failed: bool


class Collector:
    """Takes spans, or leaves who brings them waiting."""

    def __init__(self):
        self.spans = []
        self.url = ""
        self.hangs = False
        self.asked = anyio.Event()
        self._news = anyio.Event()
        self._let_go = anyio.Event()

    @asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
        try:
            yield self
        finally:
            self._let_go.set()
            await runner.cleanup()

    async def _take(self, request):
        self.asked.set()
        if self.hangs:
            await self._let_go.wait()
        told = ExportTraceServiceRequest.FromString(await request.read())
        for group in told.resource_spans:
            resource = facts_of(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [taken(span, resource) for span in scope.spans]
        self._news.set()
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    async def until(self, name, count=1):
        """Return the spans of a name once there are so many."""
        with anyio.fail_after(120):
            while len(self.named(name)) < count:
                self._news = anyio.Event()
                await self._news.wait()
        return self.named(name)


def taken(span, resource):
    return Taken(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        facts_of(span.attributes),
        resource,
        span.status.code == 2,
    )


def facts_of(attributes):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
