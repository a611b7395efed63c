"""Tracing settings: the collector's endpoint."""

from msgspec import Struct


class TracesSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of tracing.

    OpenTelemetry's standard variables (`OTEL_…`) apply too: headers, sampling, resource
    attributes, sizes and times of the exporter's queue. `OTEL_EXPORTER_OTLP_ENDPOINT`
    and `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` turn traces on as well.

    Attributes:
        endpoint: The collector's OTLP/HTTP address for traces, for example
            `http://collector:4318/v1/traces`; empty to use the variables, or for none.
    """

    endpoint: str = ""
