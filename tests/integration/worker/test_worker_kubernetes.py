"""Pods: attempts in them are what they are elsewhere, whatever the API of Kubernetes does."""

import signal
from contextlib import asynccontextmanager

import anyio
import pytest

from pubsubflow.executors import Attempt, AttemptExit, AttemptLabel, CannotStart
from pubsubflow.kubernetes import Pod
from pubsubflow.model.wire.messages import Outcome
from pubsubflow.model.wire.task_resources import ResourcesSpec
from pubsubflow.worker.executors.settings import load_executor
from support.executor_conformance import OutlivingConformance, none_outstanding
from support.kubernetes_api import KubernetesApi
from support.kubernetes_node import BAD_IMAGE, UNKNOWN_IMAGE

pytestmark = pytest.mark.anyio
RUN = "01930000-0000-7000-8000-000000000000"
TEMPLATE = {
    "metadata": {"labels": {"team": "a"}},
    "spec": {
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "containers": [
            {"name": "task", "env": [{"name": "A", "value": "1"}], "workingDir": "/tmp"},
            {"name": "proxy", "image": "proxy:1"},
        ],
    },
}
ONE = """
from pubsubflow import dag, task
from pubsubflow.kubernetes import Pod

@dag
def work():
    @task(executor=Pod())
    def add(a: int = 1) -> int:
        print("adding")
        return a + 1
    add()
"""


@pytest.fixture
async def api(tmp_path):
    (tmp_path / "cluster").mkdir()
    async with KubernetesApi.start(tmp_path / "cluster") as api:
        yield api


def offered(api, **section):
    usual = {"kubeconfig": str(api.kubeconfig), "namespace": "jobs", "image": "psf:1", "slots": 20}
    return load_executor("kubernetes", usual | section)


@pytest.fixture
async def executor(api):
    found = offered(api).executor
    await found.open()
    yield found
    await found.close()


def attempt(code, number=1, **options):
    label = AttemptLabel(RUN, 7, 0, -1, number, 1)
    environment = {"SECRET": "psf-secret"}
    return Attempt(label, "d", "t", ("-c", code), environment, Pod(**options))


async def test_what_runs_in_a_pod_ends_as_it_says_while_the_api_fails(api, executor):
    said = []
    for method, path, status in (
        ("POST", "/secrets", 500),
        ("POST", "/pods", 429),
        ("PATCH", f"/{attempt('').label.name}", 503),
        ("GET", "/pods", 500),
    ):
        api.fail(method, path, status)
    code = "import os, sys; print(os.environ['SECRET'], os.environ['N']); sys.stdin.read(); exit(3)"
    one = attempt(code, environment={"N": "5"})
    await executor.start(one)
    await executor.start(one)  # as a message that came again
    assert list(api.items["pods"]) == [one.label.name]
    assert "psf-secret" not in str(api.items["pods"])
    assert await executor.watch(one.label, said.append) == AttemptExit(3, begun=False)
    assert await executor.watch(one.label, said.append) == AttemptExit(3, begun=False)
    assert await executor.read_output(one.label) == "psf-secret 5"
    more = [attempt("", number) for number in range(2, 6)]
    for each in more:
        await executor.start(each)
    assert set(await executor.find()) == {one.label, *(each.label for each in more)}
    assert await offered_elsewhere(api) == []
    for each in (one, *more):
        assert await executor.watch(each.label, said.append)
        await executor.remove(each.label)
        await executor.remove(each.label)
    assert await executor.find() == []
    assert (api.items, said) == ({"pods": {}, "secrets": {}}, [])
    assert await executor.watch(one.label, said.append) == AttemptExit(None, "its pod was removed")
    assert await executor.read_output(one.label) == ""


async def offered_elsewhere(api):
    """What another installation in the namespace finds."""
    other = offered(api, installation="other").executor
    await other.open()
    try:
        return await other.find()
    finally:
        await other.close()


SLEEPS = """
import os, time
open(os.environ["PUBSUBFLOW_BEGUN_FILE"], "w").write("begun")
time.sleep(99)
"""


@asynccontextmanager
async def watched(api, executor, *attempts):
    """Start attempts and watch them; gives what they say and, in the end, how they ended."""
    said, ends = [], {}

    async def watch(each):
        ends[each.label.attempt] = await executor.watch(each.label, said.append)

    async with anyio.create_task_group() as group:
        for each in attempts:
            await executor.start(each)
            group.start_soon(watch, each)
        yield said, ends


async def test_pods_that_are_ended_from_outside_say_why(api, executor):
    pods = [attempt(SLEEPS, number) for number in range(1, 6)]
    lost, preempted, killed, evicted, hungry = (each.label.name for each in pods)
    async with watched(api, executor, *pods) as (_, ends):
        await api.until(lambda: all(begun(api, each) for each in pods))
        api.taken_from(lost, "DeletionByTaintManager")
        api.taken_from(preempted, "PreemptionByScheduler")
        api.node.kill(killed, signal.SIGKILL)
        api.node.evict(evicted)
        api.node.kill_for_memory(hungry)
    assert ends == {
        1: AttemptExit(None, "DeletionByTaintManager"),
        2: AttemptExit(None, "PreemptionByScheduler"),
        3: AttemptExit(-signal.SIGKILL),
        4: AttemptExit(-signal.SIGKILL, "Evicted: The node was low on resource: memory."),
        5: AttemptExit(-signal.SIGKILL, "OOMKilled"),
    }


def begun(api, each):
    return api.node.note(each.label.name) == "begun"


async def test_pods_that_end_before_their_first_line_have_not_begun(api, executor):
    pulled, broken, early = (
        attempt("", 1, image=UNKNOWN_IMAGE),
        attempt("", 2),
        attempt("exit(1)", 3),
    )
    api.node.breaks = 1
    async with watched(api, executor, broken) as (_, ends):
        pass
    async with watched(api, executor, pulled, early) as (said, more):
        await api.until(lambda: said)
        await executor.stop(pulled.label, 0)
    assert said == [f"task: ErrImagePull: image {UNKNOWN_IMAGE}"]
    assert ends | more == {
        1: AttemptExit(None, "its pod was removed", begun=False),
        2: AttemptExit(
            128,
            "StartError, failed to create containerd task: no space left on device",
            begun=False,
        ),
        3: AttemptExit(1, begun=False),
    }


async def test_a_pod_that_finds_no_room_says_so_until_it_has_some(api, executor):
    api.node.room = 0
    async with watched(api, executor, attempt("exit(7)")) as (said, ends):
        await api.until(lambda: said)
        api.node.room = 1
        api.wake()
    assert said[0] == "no node takes its pod: 0/1 nodes are available: 1 Insufficient cpu."
    assert said[1:] == ["its pod has what it waited for"]
    assert ends[1].exit_code == 7


def forgets(api):
    api.forget()


def breaks_off(api):
    api.cut()


def ends_watches(api):
    api.watch_seconds = 0.02
    api.cut()


def is_slow(api):
    api.slow_seconds = 0.2
    api.cut()


def is_busy(api):
    api.fail("GET", "/pods", 429, 2, Retry_After="1")
    api.cut()


def is_broken(api):
    api.fail("GET", "/pods", 500, 3)
    api.cut()


@pytest.mark.parametrize("fault", [forgets, breaks_off, ends_watches, is_slow, is_busy, is_broken])
async def test_the_end_of_a_pod_is_seen_whatever_becomes_of_its_watch(api, executor, fault):
    one = attempt(SLEEPS)
    async with watched(api, executor, one) as (said, ends):
        await api.until(lambda: begun(api, one) and api.watches)
        fault(api)
        before = api.watched
        await api.until(lambda: api.watched > before)
        api.node.kill(one.label.name, signal.SIGKILL)
    assert (said, ends) == ([], {1: AttemptExit(-signal.SIGKILL)})
    # It waits with each try: a server in trouble is not flooded.
    assert len(api.requests) < 20


async def test_what_cannot_start_is_told_from_what_may_later(api, executor):
    never = attempt("", image=BAD_IMAGE)
    await executor.start(never)
    with pytest.raises(CannotStart, match="InvalidImageName") as caught:
        await executor.watch(never.label, print)
    assert not caught.value.again
    for spec, fault in (({"containers": "none"}, "is not one of a pod"), ({"x": 1}, "invalid")):
        with pytest.raises(CannotStart, match=fault) as caught:
            await executor.start(attempt("", 2, template={"spec": spec}))
        assert not caught.value.again
    api.fail("POST", "/pods", 403)
    with pytest.raises(CannotStart, match="injected") as caught:
        await executor.start(attempt("", 3))
    assert caught.value.again


async def test_pods_are_made_from_templates_options_and_what_tasks_declare(api):
    executor = offered(api, template=TEMPLATE).executor
    await executor.open()
    declared = ResourcesSpec(memory=1 << 30, cpu=0.5)
    options = Pod(
        resources={"limits": {"nvidia.com/gpu": 1}},
        environment={"A": "2"},
        node_selector={"a": "b"},
    )
    one = attempt("")
    await executor.start(Attempt(**{**fields(one), "options": options, "resources": declared}))
    await executor.close()
    pod = api.items["pods"][one.label.name]
    task, proxy = pod["spec"]["containers"]
    assert proxy == {"name": "proxy", "image": "proxy:1"}
    assert task["resources"] == {
        "requests": {"memory": str((1 << 30) + (128 << 20)), "cpu": "500m"},
        "limits": {"memory": str((1 << 30) + (128 << 20)), "cpu": "500m", "nvidia.com/gpu": "1"},
    }
    assert (task["workingDir"], task["image"]) == ("/tmp", "psf:1")
    assert task["env"][0] == {"name": "A", "value": "2"}
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["spec"]["nodeSelector"] == {"a": "b"}
    assert pod["spec"]["tolerations"] == TEMPLATE["spec"]["tolerations"]
    assert pod["spec"]["automountServiceAccountToken"] is False


async def test_a_task_may_name_one_of_the_namespaces_of_the_settings(api, executor):
    one = attempt(SLEEPS, namespace="gpu")
    with pytest.raises(CannotStart, match="'gpu' is not in executors"):
        await executor.start(one)
    both = [offered(api, namespaces=["gpu"]).executor for _ in "12"]
    for each in both:
        await each.open()
    await both[0].start(one)
    (pod,) = api.items["pods"].values()
    assert pod["metadata"]["namespace"] == "gpu"
    # Another worker finds it by its label alone.
    assert await both[1].find() == [one.label]
    assert await executor.find() == []
    third = offered(api, namespaces=["gpu"]).executor
    await third.open()
    async with watched(api, third, one) as (_, ends):
        await api.until(lambda: begun(api, one) and api.watches)
        await third.stop(one.label, 5)
    assert ends[1].exit_code == -signal.SIGTERM
    await third.remove(one.label)
    assert api.items == {"pods": {}, "secrets": {}}
    for each in (*both, third):
        await each.close()


def fields(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


async def test_a_task_runs_in_a_pod(api, manager, start_worker):
    work = manager.load(ONE)
    async with start_worker("w1", executors=[offered(api)]):
        order = await manager.send(manager.order(work, "add"))
        result = await manager.result(order)
        await manager.until(lambda: "adding" in manager.texts(order))
        await none_outstanding(manager)
    assert (result.outcome, manager.decoded(result)) == (Outcome.SUCCESS, 2)
    assert api.items == {"pods": {}, "secrets": {}}


async def test_a_worker_that_stops_removes_the_pods_that_have_ended(api, manager, start_worker):
    work = manager.load(ONE)
    async with start_worker("w1", executors=[offered(api)]) as worker:
        order = await manager.send(manager.order(work, "add"))
        name = await named(api)
        removal = api.hold("DELETE", f"/pods/{name}")
        await manager.result(order)
        await none_outstanding(manager)
        worker.stop()
        await worker.draining.wait()
        removal.set()
    assert api.items == {"pods": {}, "secrets": {}}


async def named(api):
    """Wait for a pod, and return its name."""
    await api.until(lambda: api.items["pods"])
    return next(iter(api.items["pods"]))


@pytest.mark.soak
class TestKubernetes(OutlivingConformance):
    value = '"kubernetes"'
    imports = "from pubsubflow.kubernetes import Pod"
    refused = f"Pod(image={BAD_IMAGE!r})"

    @pytest.fixture(autouse=True)
    async def cluster(self, api):
        self.api = api

    def offer(self, folder):  # noqa: ARG002 - the server knows its own
        return [offered(self.api)]

    async def kill(self, label, folder):  # noqa: ARG002
        self.api.node.kill(label.name)
