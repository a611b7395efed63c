"""What the states of pods say: how their process ended, and whether it may have run."""

import pytest

from pubsubflow.executors import AttemptExit
from pubsubflow.kubernetes.pods import exit_of, is_removed, waits_for


def pod(phase="Running", state=None, **status):
    states = [] if state is None else [{"name": "task", "state": state}]
    return {"metadata": {}, "status": {"phase": phase, "containerStatuses": states, **status}}


def ended(code, reason="Error", message=""):
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "message": "m"}
WAITING = {"waiting": {"reason": "ContainerCreating"}}


@pytest.mark.parametrize(
    ("seen", "gone", "found"),
    [
        (pod("Pending"), False, None),
        (pod("Pending", WAITING), False, None),
        (pod(state={"running": {}}), False, None),
        (pod(state={"running": {}}), True, AttemptExit(None, "its pod was removed")),
        (pod("Pending", WAITING), True, AttemptExit(None, "its pod was removed", begun=False)),
        (pod("Failed", ended(1, message="begun")), False, AttemptExit(1)),
        (pod("Failed", ended(1)), False, AttemptExit(1, begun=False)),
        (pod("Failed", ended(137, message="begun")), False, AttemptExit(-9)),
        (pod("Failed", ended(255, message="begun")), False, AttemptExit(255)),
        # The node came back without the container: nobody knows how far it was.
        (
            pod("Failed", ended(137, "ContainerStatusUnknown")),
            False,
            AttemptExit(-9, "ContainerStatusUnknown"),
        ),
        # The kubelet has not taken the pod.
        (
            pod("Failed", reason="OutOfcpu", message="no cpu"),
            False,
            AttemptExit(None, "OutOfcpu: no cpu", begun=False),
        ),
        (
            pod("Failed", reason="Evicted", message="low on memory"),
            False,
            AttemptExit(None, "Evicted: low on memory"),
        ),
        (
            pod("Failed", WAITING, reason="Evicted", message="low on memory"),
            False,
            AttemptExit(None, "Evicted: low on memory", begun=False),
        ),
    ],
)
def test_how_a_pod_ended(seen, gone, found):
    assert exit_of(seen, gone=gone) == found


@pytest.mark.parametrize(
    ("seen", "text", "never"),
    [
        (pod("Pending", WAITING), "", False),
        (
            pod("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "psf:1"}}),
            "task: ImagePullBackOff: psf:1",
            False,
        ),
        (
            pod("Pending", {"waiting": {"reason": "InvalidImageName", "message": "x y"}}),
            "task: InvalidImageName: x y",
            True,
        ),
        (
            pod(
                "Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "m"}]
            ),
            "no node takes its pod: m",
            False,
        ),
    ],
)
def test_what_a_pod_waits_for(seen, text, never):
    assert waits_for(seen) == (text, never)


def test_a_pod_that_runs_while_it_is_removed_is_found_again():
    going = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert not is_removed(pod(state={"running": {}}) | going)
    assert is_removed(pod(state=ended(1)) | going)
    assert not is_removed(pod(state=ended(1)))
