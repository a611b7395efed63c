"""Pods of attempts: how they are written, and what their state says."""

import math
import signal
from collections.abc import Mapping
from typing import Any, Literal

from pubsubflow.executors import BEGUN, BEGUN_FILE, Attempt, AttemptExit, AttemptLabel
from pubsubflow.kubernetes.options import KubernetesSettings, Pod
from pubsubflow.model.wire.task_resources import ResourcesSpec

Manifest = dict[str, Any]
CONTAINER = "task"
INSTALLATION = "pubsubflow.dev/installation"
_PREFIX = "pubsubflow.dev/"
_UNMAPPED, _NONE = "-1", "none"
_SIGNALLED = 128
_SIGNALS = frozenset(signal.Signals)
# What the two processes of an attempt hold beside what the task declares.
_OWN_BYTES = 128 << 20
_PLAIN = ("", "Completed", "Error")
# With these no later try of the kubelet can end otherwise.
_HOPELESS = ("InvalidImageName",)
_UNKNOWN = "ContainerStatusUnknown"
# Of a kubelet that refuses a pod before any of its containers.
_UNADMITTED = ("OutOf", "NodeAffinity", "UnexpectedAdmissionError")
_NOTES = "/dev/termination-log"
_STARTING = ("ContainerCreating", "PodInitializing")


def metadata(label: AttemptLabel, settings: KubernetesSettings) -> Manifest:
    """Return the name and the labels of what belongs to an attempt."""
    labels = {
        # A value of a label begins with a letter or a digit.
        _PREFIX + key.replace("_", "-"): text if text != _UNMAPPED else _NONE
        for key, text in label.to_dict().items()
    }
    return {"name": label.name, "labels": labels | {INSTALLATION: settings.installation}}


def label_of(item: Mapping[str, Any]) -> AttemptLabel | None:
    """Return the attempt of a pod or secret; None if its labels are not ours."""
    labels = item["metadata"].get("labels") or {}
    texts = {
        key.removeprefix(_PREFIX).replace("-", "_"): text if text != _NONE else _UNMAPPED
        for key, text in labels.items()
        if key.startswith(_PREFIX)
    }
    try:
        return AttemptLabel.from_dict(texts)
    except ValueError:
        return None


def secret_of(attempt: Attempt, settings: KubernetesSettings) -> Manifest:
    """Return the secret with what the process of an attempt gets."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(attempt.label, settings),
        "type": "Opaque",
        "stringData": attempt.environment,
    }


def pod_of(attempt: Attempt, settings: KubernetesSettings) -> Manifest:
    """Return the pod of an attempt."""
    options: Pod = attempt.options
    found: Manifest = merged(settings.template, options.template)
    ours = metadata(attempt.label, settings)
    about = found.setdefault("metadata", {})
    about["name"] = ours["name"]
    about["labels"] = {**about.get("labels", {}), **options.labels, **ours["labels"]}
    notes = {"pubsubflow.dev/dag": attempt.dag_id, "pubsubflow.dev/task": attempt.task_id}
    about["annotations"] = {**about.get("annotations", {}), **options.annotations, **notes}
    spec = found.setdefault("spec", {})
    spec["restartPolicy"] = "Never"
    # User code is not to act on the cluster unless somebody means it to.
    spec.setdefault("automountServiceAccountToken", bool(options.service_account))
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    if options.node_selector:
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **options.node_selector}
    others = [each for each in spec.get("containers", []) if each.get("name") != CONTAINER]
    base = [each for each in spec.get("containers", []) if each.get("name") == CONTAINER]
    container = _container(base[0] if base else {}, attempt, settings)
    spec["containers"] = [container, *others]
    return {**found, "apiVersion": "v1", "kind": "Pod"}


def _container(base: Manifest, attempt: Attempt, settings: KubernetesSettings) -> Manifest:
    options: Pod = attempt.options
    secret: list[Manifest] = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": attempt.label.name, "key": name}}}
        for name in sorted(attempt.environment)
    ]
    given: list[Manifest] = [
        {"name": name, "value": text} for name, text in sorted(options.environment.items())
    ]
    # What is written there is in the state of the container once it has ended, however it did.
    begun = {"name": BEGUN_FILE, "value": base.get("terminationMessagePath", _NOTES)}
    given.append(begun)
    names = {each["name"] for each in (*given, *secret)}
    kept = [each for each in base.get("env", []) if each["name"] not in names]
    usual = {"command": ["python"], "image": settings.image}
    found = {**usual, **base, "name": CONTAINER, "args": list(attempt.arguments)}
    found["env"] = [*kept, *given, *secret]
    if options.image:
        found["image"] = options.image
    resources = _resources(base.get("resources", {}), attempt.resources, options)
    return {**found, "resources": resources} if resources else found


def _resources(base: Manifest, declared: ResourcesSpec | None, options: Pod) -> Manifest:
    found, known = dict(base), {}
    kind: Literal["requests", "limits"]
    if declared is not None and declared.memory is not None:
        # The process keeps to what is declared, and says so; the kernel would just end it.
        known["memory"] = str(declared.memory + _OWN_BYTES)
    if declared is not None and declared.cpu is not None:
        known["cpu"] = f"{math.ceil(declared.cpu * 1000)}m"
    for kind in ("requests", "limits"):
        given = {key: str(each) for key, each in options.resources.get(kind, {}).items()}
        values = {**found.get(kind, {}), **known, **given}
        if values:
            found[kind] = values
    return found


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Manifest:
    """Return two partial objects as one: objects are merged, all else is that of the second."""
    found = {key: _copied(each) for key, each in under.items()}
    for key, each in over.items():
        before = found.get(key)
        if isinstance(each, dict) and isinstance(before, dict):
            found[key] = merged(before, each)
        else:
            found[key] = _copied(each)
    return found


def _copied(value: Any) -> Any:
    return merged(value, {}) if isinstance(value, dict) else value


def is_removed(pod: Mapping[str, Any]) -> bool:
    """Return whether nothing of a pod runs, and it is only not gone yet."""
    status = pod.get("status") or {}
    states = [each.get("state") or {} for each in status.get("containerStatuses") or []]
    runs = any("running" in each for each in states)
    return "deletionTimestamp" in pod["metadata"] and not runs


def exit_of(pod: Mapping[str, Any], *, gone: bool = False) -> AttemptExit | None:
    """Return how the process of a pod has ended; None while it may run.

    Args:
        pod: Its last state.
        gone: Whether the pod is removed.
    """
    status = pod.get("status") or {}
    for each in status.get("containerStatuses") or []:
        ended = (each.get("state") or {}).get("terminated")
        if each["name"] == CONTAINER and ended is not None:
            return _exit(ended, status)
    if gone or status.get("phase") in ("Failed", "Succeeded"):
        return AttemptExit(None, _why_lost(status) or "its pod was removed", _may_have_run(status))
    return None


def _may_have_run(status: Mapping[str, Any]) -> bool:
    """Return whether the process of a pod that did not say how it ended may have run."""
    states = [each.get("state") or {} for each in status.get("containerStatuses") or []]
    if status.get("phase") == "Pending" or (states and all("waiting" in each for each in states)):
        return False
    return not status.get("reason", "").startswith(_UNADMITTED)


def _exit(ended: Mapping[str, Any], status: Mapping[str, Any]) -> AttemptExit:
    code, reason = ended.get("exitCode", 0), ended.get("reason", "")
    if code - _SIGNALLED in _SIGNALS:
        code = _SIGNALLED - code
    note = ended.get("message", "")
    begun = note.startswith(BEGUN) or reason == _UNKNOWN
    words = [_why_lost(status) if code else "", "" if reason in _PLAIN else reason]
    words.append("" if begun else note)
    return AttemptExit(code, ", ".join(filter(None, words)), begun)


def _why_lost(status: Mapping[str, Any]) -> str:
    """Return why a pod was ended from outside: evicted, preempted, its node was lost."""
    if status.get("reason"):
        return ": ".join(filter(None, (status["reason"], status.get("message", ""))))
    for each in status.get("conditions") or []:
        if each.get("type") == "DisruptionTarget" and each.get("status") == "True":
            return ": ".join(filter(None, (each.get("reason", ""), each.get("message", ""))))
    return ""


def waits_for(pod: Mapping[str, Any]) -> tuple[str, bool]:
    """Return what a pod waits for, in a line, and whether it can never come; empty for nothing."""
    status = pod.get("status") or {}
    for each in status.get("conditions") or []:
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            text = each.get("message") or each.get("reason") or ""
            return f"no node takes its pod: {text}", False
    for kind in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(kind) or []:
            waiting = (each.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason", "")
            if reason and reason not in _STARTING:
                text = ": ".join(filter(None, (reason, waiting.get("message", ""))))
                return f"{each['name']}: {text}", reason in _HOPELESS
    return "", False
