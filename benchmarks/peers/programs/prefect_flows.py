"""Prefect's flows of the suite, served by one process."""

import os
import time
import urllib.request

from prefect import flow, serve, task
from prefect.events import DeploymentEventTrigger, emit_event
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


@flow(name="pair-down")
def pair_down(key: str):
    """Follow."""
    step("pair.down", key, flow_run.id)


@flow
def ten(key: str):
    """Ten tasks side by side."""
    steps = [step.submit(f"ten.{index}", key, flow_run.id) for index in range(10)]
    for each in steps:
        each.wait()


def link(index):
    """Make a flow of the chain."""

    @flow(name=f"chain-{index}")
    def chain(key: str):
        step(f"chain.{index}", key, flow_run.id)
        if index < 9:
            emit(f"link{index + 1}", key)

    return chain


def fanned(index):
    """Make a flow of the fan."""

    @flow(name=f"fan-{index}")
    def fan(key: str):
        step(f"fan.{index}", key, flow_run.id)

    return fan


def trigger(name):
    """Make a trigger that hands on an event's key."""
    return DeploymentEventTrigger(
        name=f"on-{name}",
        expect={f"peers.{name}"},
        match={"prefect.resource.id": f"peers.{name}"},
        parameters={"key": "{{ event.payload.key }}"},
    )


def await_server():
    """Wait until the server, which starts beside, answers."""
    while True:
        try:
            with urllib.request.urlopen(f"{os.environ['PREFECT_API_URL']}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)


if __name__ == "__main__":
    await_server()
    links = [link(index) for index in range(10)]
    deployments = [
        one.to_deployment("one", triggers=[trigger("one")]),
        slow.to_deployment("slow", triggers=[trigger("slow")]),
        pair.to_deployment("pair"),
        pair_down.to_deployment("pair-down", triggers=[trigger("hop")]),
        ten.to_deployment("ten"),
        *(
            each.to_deployment(
                f"chain-{index}", triggers=[trigger(f"link{index}")] if index else []
            )
            for index, each in enumerate(links)
        ),
        *(
            fanned(index).to_deployment(f"fan-{index}", triggers=[trigger("fan")])
            for index in range(10)
        ),
    ]
    serve(*deployments, limit=int(os.environ["PEERS_LIMIT"]))
