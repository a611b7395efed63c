"""The OpenTelemetry SDK: the only module that imports it, loaded where tracing is on.

Spans are made when they end, with the ids that their contexts were given long before, perhaps in
another daemon; so they go to the SDK's processor in the form that it has of ended spans. The
processor's queue is bounded, its thread exports, and what does not fit is dropped: a collector
that is slow or out of reach costs the work nothing.
"""

import secrets
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from pubsubflow.model.traces import Span, is_sampled, span_id_of, trace_id_of, with_span

log = structlog.get_logger(__name__)

_FLUSH_SECONDS = 2.0
_NANOSECONDS = 1_000_000_000
_KINDS = {
    "server": SpanKind.SERVER,
    "consumer": SpanKind.CONSUMER,
    "producer": SpanKind.PRODUCER,
    "internal": SpanKind.INTERNAL,
}


@asynccontextmanager
async def export_spans(endpoint: str, environ: Mapping[str, str]) -> AsyncIterator["OtelTracing"]:
    """Export spans within the block; at its end the rest is flushed, within 2 s.

    Args:
        endpoint: Address for traces; empty to use the environment's.
        environ: Environment variables; the SDK itself reads further ones from the process.
    """
    exporter = OTLPSpanExporter(endpoint=endpoint or None)
    processor = BatchSpanProcessor(exporter)
    provider = TracerProvider(resource=_resource(environ), shutdown_on_exit=False)
    log.info("tracing.started", endpoint=endpoint or "by OTEL_… variables")
    try:
        yield OtelTracing(provider, processor)
    finally:
        await _flush(processor)


def _resource(environ: Mapping[str, str]) -> Resource:
    """Return the resource of the spans; the standard variables override its name."""
    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    own = {} if named else {SERVICE_NAME: "pubsubflow"}
    return Resource.create({**own, SERVICE_VERSION: version("pubsubflow")})


async def _flush(processor: SpanProcessor) -> None:
    """Export the spans that are left, within the time limit."""
    # A daemon thread: the SDK's shutdown may wait longer for a collector than a stop may take.
    done = threading.Event()

    def shut_down() -> None:
        processor.shutdown()
        done.set()

    threading.Thread(target=shut_down, name="tracing-flush", daemon=True).start()
    with anyio.CancelScope(shield=True):
        if not await anyio.to_thread.run_sync(done.wait, _FLUSH_SECONDS):
            log.warning("tracing.flush_timed_out", reason="the collector takes too long")


class OtelTracing:
    """Exports spans through OpenTelemetry's SDK.

    Args:
        provider: Holds the sampler and the resource.
        processor: Exports ended spans; must not block.
    """

    on = True

    def __init__(self, provider: TracerProvider, processor: SpanProcessor) -> None:
        self._sampler = provider.sampler
        self._resource = provider.resource
        self._processor = processor
        self._scope = InstrumentationScope("pubsubflow", version("pubsubflow"))

    def begin(self, parent: str | None) -> str:
        """Return the context of a new span under `parent`, or of the first of a new trace."""
        around = None
        if parent is not None:
            around = set_span_in_context(NonRecordingSpan(_context(parent)))
        trace_id = secrets.token_hex(16) if parent is None else trace_id_of(parent)
        result = self._sampler.should_sample(around, int(trace_id, 16), "pubsubflow")
        flags = "01" if result.decision is Decision.RECORD_AND_SAMPLE else "00"
        span_id = secrets.token_hex(8)
        if parent is None:
            return f"00-{trace_id}-{span_id}-{flags}"
        own = with_span(parent, span_id)
        return f"{own[:53]}{flags}{own[55:]}"

    def record(self, span: Span) -> None:
        """Add an ended span to the exporter's queue, which drops the oldest when it is full."""
        if not is_sampled(span.context):
            return
        status = Status(StatusCode.UNSET if span.error is None else StatusCode.ERROR, span.error)
        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=_context(span.context, remote=False),
                parent=None if span.parent is None else _context(span.parent),
                resource=self._resource,
                attributes=span.attributes,
                links=[Link(_context(link)) for link in span.links],
                kind=_KINDS[span.kind],
                status=status,
                start_time=int(span.started_at * _NANOSECONDS),
                end_time=max(
                    int(span.ended_at * _NANOSECONDS), int(span.started_at * _NANOSECONDS)
                ),
                instrumentation_scope=self._scope,
            )
        )


def _context(context: str, *, remote: bool = True) -> SpanContext:
    _, _, state = context.partition(" ")
    return SpanContext(
        int(trace_id_of(context), 16),
        int(span_id_of(context), 16),
        is_remote=remote,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if is_sampled(context) else 0),
        trace_state=TraceState.from_header([state]) if state else None,
    )
