"""The executor of Dask, without a cluster: names, reasons, options, and what errors mean."""

import subprocess
import sys
from contextlib import nullcontext

import anyio
import pytest
from distributed.batched import BatchedSend
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import DAG, task
from pubsubflow.dask import Dask
from pubsubflow.dask.executor import exit_of
from pubsubflow.dask.gathered import Gathered, SchedulerAway
from pubsubflow.dask.names import dataset_of, kept_of, key_of, label_of, result_of
from pubsubflow.dask.reasons import LOST_WORKER, why_waiting
from pubsubflow.dask.remote import AttemptEnded, AttemptOrder, _check_release
from pubsubflow.executors import NOT_BEGUN, AttemptExit, AttemptLabel, CannotStart
from pubsubflow.model.wire.executor_spec import ExecutorSpec
from pubsubflow.model.wire.protocol import VERSION
from pubsubflow.model.wire.stored_results import (
    StoredResult,
    decode_stored,
    encode_stored,
    run_of_kept,
)

LABEL = AttemptLabel("01930000-0000-7000-8000-000000000000", 7, 0, -1, 2, 1 << 40)
WORKERS = {
    "tcp://10.0.0.1:40000": {"name": "a", "nthreads": 4, "resources": {"GPU": 2}},
    "tcp://10.0.0.2:40000": {"name": 7, "nthreads": 2, "resources": {}},
}


class KilledWorker(Exception):  # noqa: N818
    """As Dask names it."""


numbers = st.integers(min_value=-1, max_value=1 << 62)


@given(st.builds(AttemptLabel, st.uuids().map(str), numbers, numbers, numbers, numbers, numbers))
def test_an_attempt_is_found_again_by_the_name_of_its_dataset(label):
    assert label_of(dataset_of(label, "sales"), "sales") == label
    assert label_of(dataset_of(label, "sales"), "pubsubflow") is None


@pytest.mark.parametrize("name", ["", "pubsubflow", "pubsubflow:sales:1:2", "mine", ("a", 1), 7])
def test_other_datasets_are_not_ours(name):
    assert label_of(name, "sales") is None


def test_a_key_begins_with_the_task():
    assert key_of(LABEL, "fit").startswith("fit-0193")


@pytest.mark.parametrize(
    ("options", "workers", "reason"),
    [
        ({}, {}, "the cluster has no workers"),
        ({"workers": ["b"]}, WORKERS, "none of its Dask workers is there: b"),
        ({"resources": {"GPU": 3}}, WORKERS, "no Dask worker has the resource GPU=3 (of 2 workers"),
        (
            {"resources": {"GPU": 1}, "workers": ["7"]},
            WORKERS,
            "no Dask worker has the resource GPU=1 (of 1 worker)",
        ),
        ({}, WORKERS, "waits for a free slot: 6 on 2 workers, 1 of them busy"),
        ({"workers": ["10.0.0.1"]}, WORKERS, "waits for a free slot: 4 on 1 workers, 1 of them"),
    ],
)
def test_what_waits_says_why(options, workers, reason):
    assert why_waiting(Dask(**options), workers, ["tcp://10.0.0.1:40000"]).startswith(reason)


def test_an_end_is_told_from_what_has_not_begun():
    assert exit_of(AttemptEnded(None, "lost")) == AttemptExit(None, "lost")
    assert exit_of(AttemptEnded(NOT_BEGUN, "")) == AttemptExit(NOT_BEGUN)
    assert exit_of(KilledWorker("k")) == AttemptExit(None, LOST_WORKER)
    for error, text in (
        (AttemptEnded(NOT_BEGUN, "another version"), "another version"),
        (ModuleNotFoundError("No module named 'pubsubflow'"), r"pubsubflow\[dask\] where Dask"),
        (RuntimeError("Error during deserialization of the task graph."), "and their scheduler"),
        (TypeError("no"), "its Dask worker cannot run it: TypeError: no"),
    ):
        with pytest.raises(CannotStart, match=text) as caught:
            exit_of(error)
        assert caught.value.again


def test_an_order_does_not_show_its_credentials():
    assert "psf-secret" not in repr(AttemptOrder("a", {"X": "psf-secret"}, "0.1"))


def test_options_travel_with_the_order():
    with DAG("d", executor="dask") as dag:
        task(task_id="a", executor=Dask(resources={"GPU": 1}))(print)()
    (spec,) = dag.to_spec("dags.py", "").tasks
    assert (spec.queue, spec.executor.options) == ("default@dask", {"resources": {"GPU": 1.0}})


def test_dag_files_import_no_library_of_dask():
    code = """
import sys
from pubsubflow import dag, task
from pubsubflow.dask import Dask
@dag(executor=Dask())
def d():
    task(print)()
assert "distributed" not in sys.modules and "dask" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.tuples(*[st.integers(min_value=-1, max_value=1 << 62)] * 5))
def test_a_kept_result_is_found_by_its_fence_and_by_no_other_installation(fence):
    stored = StoredResult(*fence, 0, "dask:sales", copied=False)
    assert decode_stored(encode_stored(stored)) == stored
    dataset = result_of(stored.kept_name)
    assert kept_of(dataset, "dask:sales") == stored.kept_name
    assert run_of_kept(stored.kept_name) == fence[0]
    assert kept_of(dataset, "dask:sale") == kept_of(dataset, "dask:pubsubflow") == ""
    assert label_of(dataset, "sales") is None
    assert kept_of(dataset_of(LABEL, "sales"), "dask:sales") == ""


def test_results_are_shared_by_those_who_both_say_so_on_one_scheduler():
    def spec(**options):
        return ExecutorSpec("dask", options)

    ours = spec(result="dask")
    assert ours.shares_results(spec(result="dask", priority=1))
    for other in (None, spec(), spec(result="dask", address="tcp://a:1"), ExecutorSpec("local")):
        assert not ours.shares_results(other)


@pytest.mark.anyio
async def test_what_gathers_while_a_request_runs_goes_in_the_next_one():
    done, go = [], anyio.Event()

    async def do(items):
        done.append(sorted(items))
        await go.wait()

    gathered = Gathered(do)
    async with anyio.create_task_group() as group:
        for name in "abcd":
            group.start_soon(gathered.add, {name: None})
            if not done:
                await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert done == [["a"], ["b", "c", "d"]]


@pytest.mark.anyio
async def test_what_fails_fails_for_all_that_went_with_it():
    go, failed = anyio.Event(), []

    async def do(items):
        await go.wait()
        if "b" in items:
            raise SchedulerAway("gone")

    gathered = Gathered(do)

    async def add(name):
        try:
            await gathered.add({name: None})
        except SchedulerAway:
            failed.append(name)

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(add, name)
            await anyio.wait_all_tasks_blocked()
        go.set()
    assert failed == ["b", "c"]


@pytest.mark.anyio
async def test_what_is_cancelled_is_done_by_the_next_of_those_that_went_with_it():
    done, go = [], anyio.Event()

    async def do(items):
        await go.wait()
        done.append(sorted(items))

    gathered, scope = Gathered(do), anyio.CancelScope()

    async def add_and_be_cancelled():
        with scope:
            await gathered.add({"b": None})

    async with anyio.create_task_group() as group:
        group.start_soon(gathered.add, {"a": None})
        await anyio.wait_all_tasks_blocked()
        group.start_soon(add_and_be_cancelled)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(gathered.add, {"c": None})
        await anyio.wait_all_tasks_blocked()
        go.set()
        go = anyio.Event()
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert done == [["a"], ["b", "c"]]


def test_the_pause_between_messages_to_a_scheduler_can_be_set_as_it_is():
    """`DaskCluster.client` sets it where the client of Dask's takes no such argument."""
    assert BatchedSend(interval="10ms", loop=object()).interval == pytest.approx(0.010)


@pytest.mark.parametrize(("release", "begins"), [(VERSION, True), ("0.0.1", False)])
def test_a_dask_worker_of_another_version_begins_nothing(release, begins):
    expected = nullcontext() if begins else pytest.raises(AttemptEnded, match="install the same")
    with expected:
        _check_release(release, "tcp://10.0.0.1:40000")
