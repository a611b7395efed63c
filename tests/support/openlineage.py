"""OpenLineage check: an event is valid by the standard's JSON Schema and by its client.

The schemas are in `openlineage_spec`. The client (openlineage-python, Apache-2.0) has a model that
is generated from them: it must parse every part strictly, and give it back unchanged.
"""

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from uuid import UUID

import attr
import msgspec
from jsonschema import Draft202012Validator, FormatChecker
from openlineage.client import event_v2, facet_v2
from referencing import Registry, Resource

SPEC = Path(__file__).parent / "openlineage_spec"
RUN_FACETS = {
    "parent": facet_v2.parent_run.ParentRunFacet,
    "nominalTime": facet_v2.nominal_time_run.NominalTimeRunFacet,
    "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
    "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
    "jobDependencies": facet_v2.job_dependencies_run.JobDependenciesRunFacet,
    "tags": facet_v2.tags_run.TagsRunFacet,
}
JOB_FACETS = {
    "jobType": facet_v2.job_type_job.JobTypeJobFacet,
    "ownership": facet_v2.ownership_job.OwnershipJobFacet,
    "documentation": facet_v2.documentation_job.DocumentationJobFacet,
    "tags": facet_v2.tags_job.TagsJobFacet,
}


def check(event):
    bare = json.loads(json.dumps(event))
    for part, kinds in ((bare["run"], RUN_FACETS), (bare["job"], JOB_FACETS)):
        for name, facet in part.pop("facets").items():
            _same(facet, kinds[name])
    _same(bare, event_v2.RunEvent)
    UUID(event["run"]["runId"])
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert all(set(each) == {"namespace", "name"} for each in event["inputs"] + event["outputs"])
    errors = [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(event)]
    assert not errors, errors


def _same(part, kind):
    """Check that a part has no field unknown to the standard, and names its schema."""
    read = msgspec.convert(part, kind)
    assert _without_empty(msgspec.to_builtins(attr.asdict(read))) == _without_empty(part)


def _without_empty(value):
    if isinstance(value, dict):
        return {
            key: _without_empty(each) for key, each in value.items() if each not in (None, [], {})
        }
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


@cache
def _validator():
    schemas = [json.loads(file.read_text()) for file in sorted(SPEC.glob("*Facet.json"))]
    core = json.loads((SPEC / "OpenLineage.json").read_text())
    registry = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in [core, *schemas]
    )
    event = {
        "allOf": [
            {"$ref": f"{core['$id']}#/$defs/RunEvent"},
            {
                "properties": {
                    part: {"properties": {"facets": {"allOf": _facets(schemas, part)}}}
                    for part in ("run", "job")
                }
            },
        ]
    }
    return Draft202012Validator(event, registry=registry, format_checker=FormatChecker())


def _facets(schemas, part):
    """Return the schemas of facets, each of which describes one key."""
    ending = f"{part.title()}Facet.json"
    return [{"$ref": each["$id"]} for each in schemas if each["$id"].endswith(ending)]
