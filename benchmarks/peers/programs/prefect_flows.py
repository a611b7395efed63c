"""Prefect's flows of the suite, served by one process."""

import asyncio
import os
import time
import urllib.request
from pathlib import Path

from prefect import flow, task
from prefect.events import DeploymentEventTrigger, emit_event
from prefect.runner import Runner
from prefect.runtime import flow_run
from task_marks import body


@task
def step(label, key, run):
    """Do a task."""
    body(label, [key], run)


def emit(name, key):
    """Emit an event that starts the next flow."""
    emit_event(f"peers.{name}", {"prefect.resource.id": f"peers.{name}"}, payload={"key": key})


@flow
def one(key: str):
    """One task."""
    step("one", key, flow_run.id)


@flow
def slow(key: str):
    """One task that takes its time."""
    step("slow", key, flow_run.id)


@flow
def pair(key: str):
    """Emit the event that starts the flow after it."""
    step("pair.up", key, flow_run.id)
    emit("hop", key)


@flow
def pair_down(key: str):
    """Follow."""
    step("pair.down", key, flow_run.id)


@flow
def ten(key: str):
    """Ten tasks side by side."""
    steps = [step.submit(f"ten.{index}", key, flow_run.id) for index in range(10)]
    for each in steps:
        each.wait()


@flow
def chain(key: str, index: int):
    """Emit the event that starts the next flow of ten."""
    step(f"chain.{index}", key, flow_run.id)
    if index < 9:
        emit(f"link{index + 1}", key)


@flow
def fan(key: str, index: int):
    """One of ten."""
    step(f"fan.{index}", key, flow_run.id)


def trigger(name, **parameters):
    """Make a trigger that hands on an event's key."""
    return DeploymentEventTrigger(
        name=f"on-{name}",
        expect={f"peers.{name}"},
        match={"prefect.resource.id": f"peers.{name}"},
        parameters={"key": "{{ event.payload.key }}", **parameters},
    )


def await_server():
    """Wait until the server, which starts beside, answers."""
    while True:
        try:
            with urllib.request.urlopen(f"{os.environ['PREFECT_API_URL']}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)


def deployments():
    """Make a deployment of each workload, and of each of ten flows."""
    made = [
        one.to_deployment("one", triggers=[trigger("one")]),
        slow.to_deployment("slow", triggers=[trigger("slow")]),
        pair.to_deployment("pair"),
        pair_down.to_deployment("pair_down", triggers=[trigger("hop")]),
        ten.to_deployment("ten"),
    ]
    for index in range(10):
        triggers = [trigger(f"link{index}", index=index)] if index else []
        own = {"index": index}
        made.append(chain.to_deployment(f"chain_{index}", parameters=own, triggers=triggers))
        triggers = [trigger("fan", index=index)]
        made.append(fan.to_deployment(f"fan_{index}", parameters=own, triggers=triggers))
    return made


def serve():
    """Serve the deployments, as `prefect.serve` does, and say when they are there."""
    runner = Runner(limit=int(os.environ["PEERS_LIMIT"]))
    for deployment in deployments():
        runner.add_deployment(deployment)
    Path(os.environ["PEERS_READY"]).touch()
    asyncio.run(runner.start())


if __name__ == "__main__":
    await_server()
    serve()
