"""DBOS's workflows of the suite: `prepare`, `worker` or `client`."""

import os
import sys
import threading
from pathlib import Path

from client_loop import serve
from dbos import DBOS, DBOSClient
from task_marks import body

ADDRESS = os.environ["PEERS_ADDRESS"]
POLL_SECONDS = float(os.environ["PEERS_POLL_SECONDS"])
QUEUE, UNHEARD = "peers", "unheard"
VERSION = "peers"  # a restart recovers workflows of its own version alone

queues = {}


@DBOS.step()
def step(label, key, run):
    """Do a task."""
    body(label, [key], run)


@DBOS.workflow()
def one(key):
    """One task."""
    step("one", key, DBOS.workflow_id)


@DBOS.workflow()
def slow(key):
    """One task that takes its time."""
    step("slow", key, DBOS.workflow_id)


@DBOS.workflow()
def pair(key):
    """Enqueue the workflow after it."""
    step("pair.up", key, DBOS.workflow_id)
    queues[QUEUE].enqueue(pair_down, key)


@DBOS.workflow()
def pair_down(key):
    """Follow."""
    step("pair.down", key, DBOS.workflow_id)


@DBOS.workflow()
def chain(key, index=0):
    """Enqueue the next workflow of ten."""
    step(f"chain.{index}", key, DBOS.workflow_id)
    if index < 9:
        queues[QUEUE].enqueue(chain, key, index + 1)


@DBOS.workflow()
def fan(key):
    """Enqueue ten workflows."""
    for index in range(10):
        queues[QUEUE].enqueue(fanned, key, index)


@DBOS.workflow()
def fanned(key, index):
    """One of ten."""
    step(f"fan.{index}", key, DBOS.workflow_id)


@DBOS.workflow()
def ten(key):
    """Ten tasks, one after the other."""
    for index in range(10):
        step(f"ten.{index}", key, DBOS.workflow_id)


def launch():
    """Start the library, which makes its tables."""
    DBOS(
        config={
            "name": "peers",
            "system_database_url": ADDRESS,
            "application_version": VERSION,
            "run_admin_server": False,
            "log_level": "WARNING",
            "enable_otlp": False,
        }
    )
    DBOS.launch()
    queues[QUEUE] = DBOS.register_queue(QUEUE, polling_interval_sec=POLL_SECONDS)


def prepare():
    """Make the tables."""
    launch()
    DBOS.destroy()


def work():
    """Take workflows until stopped."""
    launch()
    Path(os.environ["PEERS_READY"]).touch()
    threading.Event().wait()


def client():
    """Enqueue workflows for the suite."""
    dbos = DBOSClient(system_database_url=ADDRESS)

    def enqueue(queue, workload, key, workflow_id=None):
        options = {"queue_name": queue, "workflow_name": workload, "app_version": VERSION}
        if workflow_id is not None:
            options["workflow_id"] = workflow_id
        dbos.enqueue(options, key)

    def send(workload, keys):
        for key in keys:
            enqueue(QUEUE, workload, key, f"{workload}-{key}")

    serve(send, lambda: enqueue(UNHEARD, "one", "-"))


if __name__ == "__main__":
    {"prepare": prepare, "worker": work}.get(sys.argv[1], client)()
