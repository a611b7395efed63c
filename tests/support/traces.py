"""OTLP/HTTP collector that keeps the spans it gets."""

from contextlib import asynccontextmanager

import anyio
from aiohttp import web
from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from support.servers import http_server
from support.signals import Signal

REMOTE_PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
OTHER_PARENT = f"00-{'c' * 32}-{'d' * 16}-01"


class ReceivedSpan(Struct, frozen=True):
    """A span as it arrived."""

    name: str
    kind: int
    trace: str
    span: str
    parent: str
    state: str
    links: tuple[tuple[str, str], ...]
    attributes: dict
    resource: dict
    failed: bool


class TraceCollector:
    """Receives spans.

    Attributes:
        hangs: It answers no request until it is closed.
        requested: Set when the first request comes.
    """

    def __init__(self):
        self.spans = []
        self.url = ""
        self.hangs = False
        self.requested = anyio.Event()
        self._closing = anyio.Event()
        self._signal = Signal()

    @asynccontextmanager
    async def serving(self):
        async with http_server("/v1/traces", self._handle) as url:
            self.url = f"{url}/v1/traces"
            try:
                yield self
            finally:
                self._closing.set()

    async def _handle(self, request):
        self.requested.set()
        if self.hangs:
            await self._closing.wait()
        exported = ExportTraceServiceRequest.FromString(await request.read())
        for group in exported.resource_spans:
            resource = attributes_of(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [received(span, resource) for span in scope.spans]
        self._signal.notify()
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    async def until(self, name, count=1):
        """Return the spans of a name once there are so many."""
        await self._signal.wait_until(lambda: len(self.named(name)) >= count, seconds=120)
        return self.named(name)


def received(span, resource):
    return ReceivedSpan(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        attributes_of(span.attributes),
        resource,
        span.status.code == 2,
    )


def attributes_of(attributes):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
