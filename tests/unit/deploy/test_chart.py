"""The Helm chart, as Helm renders it: valid for Kubernetes, and safe by default."""

import json
import os
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from pubsubflow.config.settings import load_config
from pubsubflow.kubernetes.options import KubernetesSettings
from pubsubflow.worker.executors.settings import load_executor
from support.compose import ROOT
from tools.chart import CASES, RENDERED, digest

SCHEMAS = json.loads(
    (ROOT / "tests/support/kubernetes_schemas/v1.37.json").read_text(encoding="utf-8")
)
# Resources of operators: no schema of Kubernetes describes them.
FOREIGN = {("keda.sh/v1alpha1", "ScaledObject"), ("monitoring.coreos.com/v1", "ServiceMonitor")}


def objects(case):
    text = (RENDERED / f"{case}.yaml").read_text(encoding="utf-8")
    return [each for each in yaml.safe_load_all(text) if each]


def of_kind(case, *kinds):
    return {each["metadata"]["name"]: each for each in objects(case) if each["kind"] in kinds}


def pods(case):
    """Return the pod templates with the names of what makes them."""
    found = of_kind(case, "Deployment", "StatefulSet", "Job")
    return {name: each["spec"]["template"] for name, each in found.items()}


@pytest.mark.parametrize("case", CASES)
def test_what_is_rendered_is_of_the_present_chart(case):
    header = (RENDERED / f"{case}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert header.endswith(digest()), "the chart has changed: run `make chart`"


@pytest.mark.parametrize("case", CASES)
def test_every_object_is_valid_by_kubernetes_own_schema(case):
    for each in objects(case):
        kind = (each["apiVersion"], each["kind"])
        if kind in FOREIGN:
            continue
        name = SCHEMAS["kinds"][" ".join(kind)]
        schema = {"$ref": f"#/$defs/{name}", "$defs": SCHEMAS["$defs"]}
        errors = [
            f"{e.json_path}: {e.message}" for e in Draft202012Validator(schema).iter_errors(each)
        ]
        assert errors == [], kind


@pytest.mark.parametrize("case", CASES)
def test_names_are_unique_and_selectors_match_their_pods(case):
    names = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in objects(case)
    ]
    assert len(set(names)) == len(names)
    for name, each in of_kind(case, "Deployment", "StatefulSet").items():
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert each["spec"]["selector"]["matchLabels"].items() <= labels.items(), name
    every = [template["metadata"]["labels"].items() for template in pods(case).values()]
    for each in of_kind(case, "Service").values():
        assert any(each["spec"]["selector"].items() <= labels for labels in every)
    for each in of_kind(case, "PodDisruptionBudget").values():
        wanted = each["spec"]["selector"]["matchLabels"].items()
        assert sum(wanted <= labels for labels in every) == 1


@pytest.mark.parametrize("case", CASES)
def test_no_container_is_root_or_can_write_to_its_image(case):
    for name, template in pods(case).items():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        makes_pods = name == "psf-worker-pods"
        assert spec["automountServiceAccountToken"] is makes_pods
        assert spec["serviceAccountName"] == ("psf-pods" if makes_pods else "psf")
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"]
            assert rights["capabilities"] == {"drop": ["ALL"]}
            mounted = {each["mountPath"] for each in container.get("volumeMounts", ())}
            assert mounted, "something must be writable"


@pytest.mark.parametrize("case", CASES)
def test_workers_know_nothing_of_postgres_and_have_time_to_drain(case):
    workers = {name: each for name, each in pods(case).items() if "-worker-" in name}
    assert workers
    for template in workers.values():
        (container,) = template["spec"]["containers"]
        environ = {each["name"]: each.get("value") for each in container["env"]}
        assert not any("POSTGRES" in name for name in environ)
        drain = int(environ["PUBSUBFLOW__WORKER__DRAIN_SECONDS"])
        assert template["spec"]["terminationGracePeriodSeconds"] == drain + 15


@pytest.mark.parametrize("case", CASES)
def test_daemons_with_the_api_are_probed(case):
    for name, template in pods(case).items():
        (container,) = template["spec"]["containers"]
        if "--host" in container.get("args", ()):
            assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
            assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        roles = container.get("args", ())
        assert ("/dags" in roles) == any("scheduler" in each for each in roles), name


def test_secrets_are_in_one_object_and_nowhere_else():
    text = (RENDERED / "whole.yaml").read_text(encoding="utf-8")
    secret = of_kind("whole", "Secret")["psf-secrets"]
    assert set(secret["data"]) == {"nats-token", "postgres-password", "keys"}
    assert all(text.count(value) == 1 for value in secret["data"].values())
    assert "psfkey_" not in text
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_nothing_is_made_that_exists_elsewhere():
    assert of_kind("external", "StatefulSet", "Secret", "ConfigMap") == {}
    environ = pods("external")["psf-daemon"]["spec"]["containers"][0]["env"]
    urls = {each["name"]: each.get("value") for each in environ}
    assert urls["PUBSUBFLOW__POSTGRES__URL"] == "postgres://psf@pg-1,pg-2/psf"


def test_workers_scale_by_what_waits_over_their_slots():
    found = of_kind("external", "ScaledObject")["psf-worker-default"]
    queries = {
        t["metadata"]["threshold"]: t["metadata"]["query"] for t in found["spec"]["triggers"]
    }
    assert set(queries) == {"4", "200"}
    page = Path(ROOT / "docs/observability.md").read_text(encoding="utf-8")
    for name in ("queue_messages", "queue_unacknowledged_messages"):
        assert f"`pubsubflow_cluster_{name}`" in page
        assert all(f"pubsubflow_cluster_{name}{{" in query for query in queries.values())
    # Its number of replicas is the autoscaler's.
    assert "replicas" not in of_kind("external", "Deployment")["psf-worker-default"]["spec"]


def test_a_worker_that_makes_pods_may_do_what_the_page_lists_and_runs_no_task(tmp_path):
    (container,) = pods("whole")["psf-worker-pods"]["spec"]["containers"]
    environ = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    config = load_config(file=Path(os.devnull), environ=environ, flags={"home": tmp_path})
    assert config.worker.only_executors
    offered = load_executor("kubernetes", config.executors["kubernetes"])
    assert offered.slots == 100
    assert offered.nats_url.startswith("nats://psf-nats-0.psf-nats.data:4222,")
    assert offered.executor.settings == KubernetesSettings(
        namespace="jobs", image="pubsubflow:0.1.0", namespaces=("gpu",), installation="psf"
    )
    page = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    listed = yaml.safe_load(
        page[page.index("apiVersion: rbac") : page.index("```", page.index("rbac"))]
    )
    roles = [each for each in objects("whole") if each["kind"] == "Role"]
    assert {each["metadata"]["namespace"] for each in roles} == {"jobs", "gpu"}
    for each in roles:
        assert each["rules"] == listed["rules"]
    for each in objects("whole"):
        if each["kind"] == "RoleBinding":
            assert each["subjects"] == [
                {"kind": "ServiceAccount", "name": "psf-pods", "namespace": "data"}
            ]


def test_tables_are_migrated_before_an_upgrade():
    (job,) = of_kind("whole", "Job").values()
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["db", "migrate"]
