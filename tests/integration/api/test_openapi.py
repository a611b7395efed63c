"""The OpenAPI document: valid, whole, and kept by the server that runs."""

import inspect
import re
from collections import Counter
from functools import partial

import hypothesis
import msgspec
import pytest
import schemathesis
from anyio import to_thread
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from pubsubflow.api.http.json_schemas import text_of
from pubsubflow.api.http.openapi import PATH, document, operation_id
from pubsubflow.api.http.pagination import with_cursor
from pubsubflow.api.http.requests import NoQuery
from pubsubflow.api.http.routing import NAMES
from pubsubflow.authoring.registry import loading
from pubsubflow.model.api.resources import Page
from pubsubflow.webhooks import Unverified, Webhook
from support.api import Stub, api_on, described_routes, further_on
from support.specs import dag, loaded, task

pytestmark = pytest.mark.anyio
A = "s3://lake/a"
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
REVIVES = ("/clear", "/retry")  # last: then the run goes on, and an output followed has no end
LISTS = (
    "dags",
    "runs",
    "events",
    "datasets",
    "triggers",
    "hooks",
    "dead-letters",
    "connections",
    "variables",
    "tokens",
    "audit",
    "versions",
)
schemathesis.openapi.format(
    "cursor",
    st.builds(
        lambda name, place: with_cursor(name, Page([], str(place))).next,
        st.sampled_from(LISTS),
        st.integers(0, 2**63 - 1),
    ),
)


@pytest.fixture(scope="module")
def routes():
    return described_routes()


def test_the_document_is_valid_and_describes_every_parameter(routes):
    described = document(routes)
    validate(msgspec.json.decode(msgspec.json.encode(described)))
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            for parameter in operation["parameters"]:
                assert parameter.get("description"), (method, path, parameter["name"])


def test_every_route_declares_what_it_takes_and_gives(routes):
    """A handler that reads what its route does not declare is described wrongly."""
    names = Counter(map(operation_id, routes))
    assert [name for name, count in names.items() if count > 1] == []
    for route in routes:
        where = f"{route.method} {route.path}"
        code = inspect.getsource(route.handler)
        assert route.responses, f"{where} does not declare its responses: Route.responses"
        assert text_of(route.handler), f"{where} does not say what it does"
        parsed = {*re.findall(r"parse_query\(\s*request, (\w+)\)", code)}
        # That there is none is checked by the limits, which all requests pass.
        declared = set() if route.query in (None, NoQuery) else {route.query.__name__}
        assert parsed == declared, f"{where} reads the query {parsed}: Route.query"
        read = r"parse_body\(|request\.read\(\)|decode_body\(|self\._verified\("
        reads = re.search(read, code) is not None
        assert reads == (route.body is not None), f"{where} reads a body or not: Route.body"
        for name in re.findall(r"\{(\w+)\}", route.path):
            assert name in {**NAMES, **route.names}, f"{where}: Route.names lacks {name}"
        reads_if_match = "expected_revisions(" in code
        assert route.if_match == reads_if_match, f"{where} reads If-Match: Route.if_match"
        assert route.etag == ("json_with_etag(" in code), f"{where} has an ETag: Route.etag"


def test_two_types_of_one_name_are_refused():
    class Problem(msgspec.Struct):
        other: int

    stub = Stub()
    api = api_on(stub, stub, stub, further=further_on(stub))
    (route,) = api._parts[-1].routes()
    wrong = msgspec.structs.replace(route, responses={200: Problem})
    with pytest.raises(TypeError, match="two types of the API are named Problem"):
        document([wrong])


async def test_the_document_is_served(harness):
    served = await harness.get(PATH)
    assert served["openapi"].startswith("3.1")
    assert PATH in served["paths"]


@pytest.fixture
async def filled(harness):
    """A server that knows something of everything; return also what to ask about."""
    await harness.load(
        dag("d", task("work"), on=[A], params={"n": 1}, params_from={"n": "event.extra.n"}),
        dag("plain", task("work")),
    )
    with loading("hooks.py") as collected:
        Webhook("h", dataset=A, verify=Unverified())
    hooks = tuple(hook.to_spec() for hook in collected.hooks.values())
    file = msgspec.structs.replace(loaded(dag("hooked", task("work"))), hooks=hooks)
    await harness.catalog.save([file, loaded(file="broken.py", error="no")])
    harness.bus.publish("psf.ctl.dags", b"")
    await harness.get_until("/api/v1/hooks", lambda found: found["items"])
    await harness.post("/api/v1/datasets/events", {"dataset": A, "extra": {}})  # a dead letter
    run_id = await harness.start("plain")
    await harness.begin(run_id, 0)
    await harness.write(run_id, 0, 0, "a line")
    await harness.finish(run_id, 0, value=[1])
    await harness.wait(run_id, "success")
    (letter,) = (await harness.get("/api/v1/dead-letters"))["items"]
    harness.session.headers["Authorization"] = f"Bearer {harness.own_token}"
    await harness.post("/api/v1/tokens", {"name": "old", "role": "viewer"}, status=201)
    return harness, {
        "dag_id": "d",
        "run_id": run_id,
        "number": letter["id"],
        "name": "h",
        "id": "old",
    }


def explore(url, token, known, served, examples):
    """Ask what the document allows and what it does not; every answer is as described.

    The token is the daemon's own: tokens are made and revoked meanwhile.
    """
    own = {"Authorization": f"Bearer {token}"}
    open_to_all = {name: part for name, part in served.items() if name != "security"}
    schema = schemathesis.openapi.from_dict(open_to_all)
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    seen = Counter()
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in sorted(operations, key=lambda each: each.path.endswith(REVIVES)):
        if operation.path == "/api/v1/stream":
            continue  # its answer has no end
        run_id = known["run_id"]
        task = "work" if "run_id" in operation.path else f"{run_id}.work"
        names = {**known, "task": task}
        requested = re.findall(r"\{(\w+)\}", operation.path)
        given_names = {each: names[each] for each in requested if each in names}
        ways = [operation.as_strategy(path_parameters=given_names), operation.as_strategy()]
        if operation.query or operation.body:
            ways.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

        @settings
        @given(st.one_of(ways))
        def holds(case):
            response = case.call(base_url=url, headers=own, timeout=60)
            seen[response.status_code] += 1
            assert response.status_code < 500, response.text
            case.validate_response(response, checks=CHECKS)

        holds()
    return seen


async def test_every_answer_is_as_described(filled):
    harness, known = filled
    served = await harness.get(PATH)
    seen = await to_thread.run_sync(
        partial(explore, harness.url, harness.own_token, known, served, 12)
    )
    print(seen)
    assert {200, 400, 404, 422} <= set(seen)


@pytest.mark.soak
async def test_every_answer_is_as_described_for_long(filled):
    harness, known = filled
    served = await harness.get(PATH)
    seen = await to_thread.run_sync(
        partial(explore, harness.url, harness.own_token, known, served, 700)
    )
    assert seen.total() > 10_000
