"""Executors of tasks: named or with options, by DAG or task; daemons of before leave them alone."""

from itertools import pairwise

import msgspec
import pytest
from psf_test_executor import Bare

from pubsubflow import DAG, task
from pubsubflow.errors import ConfigError, DefinitionError
from pubsubflow.executors import AttemptLabel
from pubsubflow.kubernetes import Pod
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.source.stored_specs import EXECUTORS, PLAIN, STORED_SPEC, needed_format
from pubsubflow.model.wire.executor_spec import ExecutorSpec, split_queue
from pubsubflow.store.read.task_waits import QueueWorkers, ServedQueues
from pubsubflow.worker.assignment import without_chain
from pubsubflow.worker.executors.offers import ExecutorOffers
from pubsubflow.worker.executors.settings import load_executor
from pubsubflow.worker.settings import WorkerSettings


def function(): ...


def spec_of(dag_executor=None, **tasks):
    with DAG("d", executor=dag_executor) as dag:
        nodes = [
            task(task_id=name, **({} if value is None else {"executor": value}))(function)()
            for name, value in tasks.items()
        ]
        for before, after in pairwise(nodes):
            before >> after
    return dag.to_spec("dags.py", "")


def test_an_executor_is_a_name_or_its_options():
    spec = spec_of(a=None, b="bare", c=Bare(needs="/there"), d="local")
    assert [each.executor for each in spec.tasks] == [
        None,
        ExecutorSpec("bare"),
        ExecutorSpec("bare", {"needs": "/there"}),
        ExecutorSpec("local"),
    ]
    assert [each.queue for each in spec.tasks] == [
        "default",
        "default@bare",
        "default@bare",
        "default",
    ]
    assert split_queue("default@bare") == ("default", "bare")


def test_the_executor_of_a_dag_is_that_of_its_tasks():
    spec = spec_of(Bare(needs="/there"), a=None, b="local")
    assert [each.queue for each in spec.tasks] == ["default@bare", "default"]


@pytest.mark.parametrize("value", [3, object()])
def test_nothing_else_is_an_executor(value):
    with pytest.raises(DefinitionError, match="name of an executor"):
        task(executor=value)(function)


def test_an_option_of_another_type_is_an_error_of_its_line():
    pods = {
        "image": Pod(image=7),
        "resources": Pod(resources={"limit": {"cpu": 1}}),
    }
    for name, pod in pods.items():
        with pytest.raises(DefinitionError, match=f"option of another type.*{name}"):
            task(executor=pod)(function)
    task(executor=Pod(resources={"limits": {"nvidia.com/gpu": 1}}))(function)


def test_each_attempt_elsewhere_is_a_process_of_its_own():
    assert Plan(spec_of("bare", a=None, b=None)).chains == ((), ())
    assert Plan(spec_of("local", a=None, b=None)).chains == ((1,), ())
    assert Plan(spec_of(a="local", b=None)).chains == ((), ())


def test_daemons_of_before_leave_a_dag_with_an_executor_alone():
    assert needed_format(spec_of("local", a=None)) == PLAIN
    spec = spec_of("bare", a=None)
    assert needed_format(spec) == EXECUTORS
    assert STORED_SPEC.decode(STORED_SPEC.encode(spec)) == spec


def test_a_label_goes_through_texts():
    label = AttemptLabel("0198-ab", 7, 0, -1, 2, 1 << 40)
    assert AttemptLabel.from_dict(label.to_dict() | {"app": "pubsubflow"}) == label
    assert label.name == "0198ab-0-x2-1099511627776"
    with pytest.raises(ValueError, match="without 'run'"):
        AttemptLabel.from_dict({"run_id": "x"})


@pytest.mark.parametrize(
    ("name", "section", "text"),
    [
        ("sync", {}, "no plugin can have that name"),
        ("slurm", {}, r"no executor 'slurm' is installed here \(installed: bare, dask, kubern"),
        ("dask", {"address": "scheduler:8786"}, "executors.dask: Expected `str` matching regex"),
        ("bare", {}, "executors.bare: Object missing required field `folder`"),
        ("bare", {"folder": "x", "slots": 0}, "executors.bare: Expected `int` >= 1"),
        ("bare", {"folder": "x", "port": 1}, "unknown field `port`"),
    ],
)
def test_a_wrong_section_is_named(name, section, text):
    with pytest.raises(ConfigError, match=text):
        load_executor(name, section)


def test_a_worker_runs_by_what_it_offers():
    offered = [load_executor("bare", {"folder": "x", "slots": "7", "nats_url": "nats://n"})]
    assert (offered[0].slots, offered[0].nats_url) == (7, "nats://n")
    settings = WorkerSettings(queues=("default", "gpu"), executor="bare")
    offers = ExecutorOffers(offered, settings)
    assert offers.queues == ("default", "gpu", "default@bare", "gpu@bare")
    assert (offers.usual, offers.slots) == ("bare", 7)
    with pytest.raises(ConfigError, match=r"add a section \[executors.bare\]"):
        ExecutorOffers([], settings)


def test_what_no_worker_offers_is_said():
    served = ServedQueues({"default": QueueWorkers(1, {"sync": 0, "async": 0})})
    assert "a worker of queue default that offers the executor bare" in served.reason(
        "default@bare", "sync"
    )
    served = ServedQueues({"default@bare": QueueWorkers(1, {"sync": 0, "async": 0})})
    assert served.reason("default@bare", "sync") is None


def test_an_order_is_cut_to_its_first_task():
    message = [1, 0, -1, 1, 1, "sync", "d", "a", "s", {}, {}, {}, [], [1, 2], [5.0, None, 3.0], []]
    cut = msgspec.msgpack.decode(without_chain(msgspec.msgpack.encode(message)))
    assert (cut[13], cut[14], cut[15]) == ([], [5.0], [])
    short = msgspec.msgpack.encode(message[:10])
    assert without_chain(short) == short


def test_a_worker_of_executors_alone_serves_their_queues_alone(tmp_path):
    bare = load_executor("bare", {"folder": str(tmp_path)})
    settings = WorkerSettings(queues=("a", "b"), only_executors=True)
    offers = ExecutorOffers([bare], settings)
    assert (offers.queues, offers.serves_plain) == (("a@bare", "b@bare"), False)
    usual = WorkerSettings(only_executors=True, executor="bare")
    assert ExecutorOffers([bare], usual).queues == ("default", "default@bare")
    with pytest.raises(ConfigError, match=r"worker\.only_executors is set"):
        ExecutorOffers([], settings)
