"""OpenLineage 2-0-2 as structs: the events that are sent and their facets.

Names and nesting are the standard's; `tag` is the URL of each part's schema.
Source: https://openlineage.io/spec/2-0-2/OpenLineage.json and https://openlineage.io/spec/facets/
"""

from datetime import datetime
from enum import StrEnum
from importlib.metadata import version
from uuid import UUID

from msgspec import Struct, field

VERSION = version("pubsubflow")
PRODUCER = f"urn:pubsubflow:{VERSION}"
_SPEC = "https://openlineage.io/spec"


def _producer() -> str:
    return PRODUCER


class EventType(StrEnum):
    """What happened to a run."""

    START = "START"
    COMPLETE = "COMPLETE"
    FAIL = "FAIL"
    ABORT = "ABORT"


class Part(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A part of an event; unknown fields are left out."""


class Facet(Part, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One aspect of a run, a job or a dataset."""

    producer: str = field(default_factory=_producer, name="_producer")


def _facet(name: str, number: str) -> str:
    return f"{_SPEC}/facets/{number}/{name}.json#/$defs/{name}"


class RunLink(Part, frozen=True, kw_only=True):
    """The identity of a run."""

    run_id: UUID


class JobLink(Part, frozen=True, kw_only=True):
    """The identity of a job."""

    namespace: str
    name: str


class Root(Part, frozen=True, kw_only=True):
    """The run at the top."""

    run: RunLink
    job: JobLink


class ParentRunFacet(
    Facet, frozen=True, kw_only=True, tag_field="_schemaURL", tag=_facet("ParentRunFacet", "1-2-0")
):
    """The run that started this one."""

    run: RunLink
    job: JobLink
    root: Root


class NominalTimeRunFacet(
    Facet,
    frozen=True,
    kw_only=True,
    tag_field="_schemaURL",
    tag=_facet("NominalTimeRunFacet", "1-0-1"),
):
    """The logical time of a run."""

    nominal_start_time: datetime


class ErrorMessageRunFacet(
    Facet,
    frozen=True,
    kw_only=True,
    tag_field="_schemaURL",
    tag=_facet("ErrorMessageRunFacet", "1-0-1"),
):
    """Why a run failed."""

    message: str
    programming_language: str = field(default_factory=lambda: "PYTHON")
    stack_trace: str = ""


class ProcessingEngineRunFacet(
    Facet,
    frozen=True,
    kw_only=True,
    tag_field="_schemaURL",
    tag=_facet("ProcessingEngineRunFacet", "1-1-1"),
):
    """The engine that ran it."""

    version: str = field(default_factory=lambda: VERSION)
    name: str = field(default_factory=lambda: "pubsubflow")
    openlineage_adapter_version: str = field(default_factory=lambda: VERSION)


class JobDependency(Part, frozen=True, kw_only=True):
    """A run on whose events another one depends."""

    job: JobLink
    run: RunLink
    dependency_type: str = field(
        default_factory=lambda: "IMPLICIT_DEPENDENCY", name="dependency_type"
    )


class JobDependenciesRunFacet(
    Facet,
    frozen=True,
    kw_only=True,
    tag_field="_schemaURL",
    tag=_facet("JobDependenciesRunFacet", "1-0-1"),
):
    """The runs whose events this one consumed."""

    upstream: list[JobDependency]


class Tag(Part, frozen=True, kw_only=True):
    """A label."""

    key: str
    value: str
    source: str


class TagsRunFacet(
    Facet, frozen=True, kw_only=True, tag_field="_schemaURL", tag=_facet("TagsRunFacet", "1-0-0")
):
    """Labels of a run."""

    tags: list[Tag]


class TagsJobFacet(
    Facet, frozen=True, kw_only=True, tag_field="_schemaURL", tag=_facet("TagsJobFacet", "1-0-0")
):
    """Labels of a job."""

    tags: list[Tag]


class JobTypeJobFacet(
    Facet, frozen=True, kw_only=True, tag_field="_schemaURL", tag=_facet("JobTypeJobFacet", "2-0-4")
):
    """The type of a job: DAG or TASK."""

    job_type: str
    processing_type: str = field(default_factory=lambda: "BATCH")
    integration: str = field(default_factory=lambda: "PUBSUBFLOW")


class Owner(Part, frozen=True, kw_only=True):
    """The owner of a job."""

    name: str


class OwnershipJobFacet(
    Facet,
    frozen=True,
    kw_only=True,
    tag_field="_schemaURL",
    tag=_facet("OwnershipJobFacet", "1-0-1"),
):
    """The owner of a job."""

    owners: list[Owner]


class DocumentationJobFacet(
    Facet,
    frozen=True,
    kw_only=True,
    tag_field="_schemaURL",
    tag=_facet("DocumentationJobFacet", "1-1-0"),
):
    """The documentation of a job."""

    description: str


class RunFacets(Part, frozen=True, kw_only=True):
    """The facets of a run."""

    processing_engine: ProcessingEngineRunFacet = field(
        default_factory=ProcessingEngineRunFacet, name="processing_engine"
    )
    parent: ParentRunFacet | None = None
    nominal_time: NominalTimeRunFacet | None = None
    error_message: ErrorMessageRunFacet | None = None
    job_dependencies: JobDependenciesRunFacet | None = None
    tags: TagsRunFacet | None = None


class JobFacets(Part, frozen=True, kw_only=True):
    """The facets of a job."""

    job_type: JobTypeJobFacet
    ownership: OwnershipJobFacet | None = None
    documentation: DocumentationJobFacet | None = None
    tags: TagsJobFacet | None = None


class OpenLineageRun(Part, frozen=True, kw_only=True):
    """One execution of a job."""

    run_id: UUID
    facets: RunFacets


class OpenLineageJob(Part, frozen=True, kw_only=True):
    """A DAG or one of its tasks."""

    namespace: str
    name: str
    facets: JobFacets


class DatasetName(Part, frozen=True, kw_only=True):
    """A dataset by the standard's naming: where it is, and its name there."""

    namespace: str
    name: str


class RunEvent(
    Part,
    frozen=True,
    kw_only=True,
    tag_field="schemaURL",
    tag=f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
):
    """What happened to a run, and the datasets concerned."""

    event_type: EventType
    event_time: datetime
    run: OpenLineageRun
    job: OpenLineageJob
    inputs: tuple[DatasetName, ...]
    outputs: tuple[DatasetName, ...]
    producer: str = field(default_factory=_producer)
