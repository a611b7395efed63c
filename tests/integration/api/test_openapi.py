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
from api_rig import api_on, broken_file, dag, file_of, task
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from pubsubflow.api.http.json_schemas import text_of
from pubsubflow.api.http.openapi import PATH, document, operation_id
from pubsubflow.api.http.pagination import sealed
from pubsubflow.api.http.routing import NAMES
from pubsubflow.api.routes.connections import ConnectionRoutes
from pubsubflow.api.routes.metrics import Metrics
from pubsubflow.api.routes.subscriptions import SubscriptionRoutes
from pubsubflow.authoring.loading.registry import loading
from pubsubflow.model.api.resources import Page
from pubsubflow.webhooks import Unverified, Webhook

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
    "tokens",
    "audit",
)
schemathesis.openapi.format(
    "cursor",
    st.builds(
        lambda name, place: sealed(name, Page([], str(place))).next,
        st.sampled_from(LISTS),
        st.integers(0, 2**63 - 1),
    ),
)


class Nobody:
    """Stands for parts that a description does not need."""

    def __getattr__(self, name):
        return self


def further_on(nobody):
    """Return the parts that a daemon adds."""
    return (
        ConnectionRoutes(nobody, nobody),
        SubscriptionRoutes(nobody, nobody, allow_private=False),
        Metrics(nobody),
    )


@pytest.fixture(scope="module")
def routes():
    nobody = Nobody()
    api = api_on(nobody, nobody, nobody, further=further_on(nobody))
    return [route for part in api._parts for route in part.routes()]


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
        assert route.answers, f"{where} does not say what it answers: Route.answers"
        assert text_of(route.handler), f"{where} does not say what it does"
        asked = {*re.findall(r"query\(\s*request, (\w+)\)", code)}
        declared = set() if route.query is None else {route.query.__name__}
        assert asked == declared, f"{where} reads the query {asked}: Route.query"
        read = r"body\(|request\.read\(\)|(?<!\.)decode\(|self\._believed\("
        reads = re.search(read, code) is not None
        assert reads == (route.body is not None), f"{where} reads a body or not: Route.body"
        for name in re.findall(r"\{(\w+)\}", route.path):
            assert name in {**NAMES, **route.names}, f"{where}: Route.names lacks {name}"
        assert route.matched == ("wanted(" in code), f"{where} looks at If-Match: Route.matched"
        assert route.tagged == ("tagged(" in code), f"{where} has an ETag: Route.tagged"


def test_two_types_of_one_name_are_refused():
    class Problem(msgspec.Struct):
        other: int

    nobody = Nobody()
    api = api_on(nobody, nobody, nobody, further=further_on(nobody))
    (route,) = api._parts[-1].routes()
    wrong = msgspec.structs.replace(route, answers={200: Problem})
    with pytest.raises(TypeError, match="two types of the API are named Problem"):
        document([wrong])


async def test_the_document_is_served(rig):
    served = await rig.get(PATH)
    assert served["openapi"].startswith("3.1")
    assert PATH in served["paths"]


@pytest.fixture
async def filled(rig):
    """A server that knows something of everything; return also what to ask about."""
    await rig.load(
        dag("d", task(0, "work"), on=[A], params={"n": 1}, params_from={"n": "event.extra.n"}),
        dag("plain", task(0, "work")),
    )
    with loading("hooks.py") as collected:
        Webhook("h", dataset=A, verify=Unverified())
    hooks = tuple(hook.to_spec() for hook in collected.hooks.values())
    file = msgspec.structs.replace(file_of(dag("hooked", task(0, "work"))), hooks=hooks)
    await rig.catalog.save([file, broken_file("broken.py", "no")])
    rig.bus.publish("psf.ctl.dags", b"")
    await rig.until("/api/v1/hooks", lambda found: found["items"])
    await rig.post("/api/v1/datasets/events", {"dataset": A, "extra": {}})  # a dead letter
    run_id = await rig.start("plain")
    await rig.begin(run_id, 0)
    await rig.write(run_id, 0, 0, "a line")
    await rig.finish(run_id, 0, value=[1])
    await rig.wait(run_id, "success")
    (letter,) = (await rig.get("/api/v1/dead-letters"))["items"]
    rig.session.headers["Authorization"] = f"Bearer {rig.own_token}"
    await rig.post("/api/v1/tokens", {"name": "old", "role": "viewer"}, status=201)
    return rig, {
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
        asked = re.findall(r"\{(\w+)\}", operation.path)
        given_names = {each: names[each] for each in asked if each in names}
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
    rig, known = filled
    served = await rig.get(PATH)
    seen = await to_thread.run_sync(partial(explore, rig.url, rig.own_token, known, served, 12))
    print(seen)
    assert {200, 400, 404, 422} <= set(seen)


@pytest.mark.soak
async def test_every_answer_is_as_described_for_long(filled):
    rig, known = filled
    served = await rig.get(PATH)
    seen = await to_thread.run_sync(partial(explore, rig.url, rig.own_token, known, served, 700))
    assert seen.total() > 10_000
