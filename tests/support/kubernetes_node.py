"""The node of the test server of Kubernetes: its scheduler, and a kubelet whose pods are processes.

A pod's process has an empty folder, an environment of its own and the interpreter's packages: that
is the image.
"""

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

UNKNOWN_IMAGE, BAD_IMAGE = "nowhere/unknown:1", "Not An Image"
TERMINATION_LOG = "/dev/termination-log"


class KubernetesNode:
    """Runs pods.

    Attributes:
        unpulled: Images that cannot be pulled.
        room: How many pods run at once; None for any number. Others are unschedulable.
        breaks: How many of the next containers fail to start.
        processes: Pod → its process; `started` when that began, seconds since 1970.
        refused: Pod → when it was refused.
    """

    def __init__(self, folder, api):
        self.folder = folder
        self.api = api
        self.unpulled = {UNKNOWN_IMAGE}
        self.room = None
        self.breaks = 0
        self.processes = {}
        self.running = set()
        self.reasons = {}
        self.started = {}
        self.refused = {}

    def close(self):
        for name in list(self.processes):
            self.kill(name)
            self.processes[name].wait()

    def kill(self, name, number=signal.SIGKILL):
        """Send a signal to the process of a pod and to all that it started."""
        with suppress(ProcessLookupError, KeyError):
            os.killpg(self.processes[name].pid, number)

    def runs(self, pod):
        return pod["metadata"]["uid"] in self.running

    async def stop(self, name, seconds):
        """End a pod with its grace, as the kubelet does."""
        process = self.processes[name]
        self.kill(name, signal.SIGTERM)
        await asyncio.sleep(seconds)
        if self.processes.get(name) is process:
            self.kill(name)

    def evict(self, name, message="The node was low on resource: memory."):
        """Stop a pod for want of something: it stays, and says why."""
        pod = self.api.items["pods"][name]
        pod["status"] |= {"reason": "Evicted", "message": message}
        self.kill(name)

    def kill_for_memory(self, name):
        """Kill a pod as the kernel does when it uses more than its limit."""
        self.reasons[self.api.items["pods"][name]["metadata"]["uid"]] = "OOMKilled"
        self.kill(name)

    def output(self, name):
        file = self.folder / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else None

    def note(self, name):
        """Return what the process of a pod has written for its last state."""
        pod = self.api.items["pods"].get(name)
        file = self.folder / f"{pod['metadata']['uid']}.termination" if pod else None
        return file.read_text() if file and file.exists() else ""

    async def run(self, pod):
        """Schedule a pod, run its process, and say how it ends."""
        await self.schedule(pod)
        if self.refuse(pod):
            return
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        notes = self.folder / f"{uid}.termination"
        process = self.start(pod, notes)
        self.running.add(uid)
        pod["status"]["phase"] = "Running"
        self.state(pod, {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
        code = await ended(process)
        self.running.discard(uid)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # all of the container ends with the first
        number = code if code >= 0 else 128 - code
        reason = self.reasons.pop(uid, "Error" if code else "Completed")
        state = {"exitCode": number, "reason": reason}
        if notes.exists() and notes.read_text():
            state["message"] = notes.read_text()
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        self.state(pod, {"terminated": state})
        if "deletionTimestamp" in pod["metadata"] and self.there(pod):
            self.api.gone("pods", name)

    async def schedule(self, pod):
        """Wait until there is room, and say so meanwhile."""
        said = False
        while self.room is not None and len(self.running) >= self.room and self.there(pod):
            if not said:
                text = "0/1 nodes are available: 1 Insufficient cpu."
                self.condition(pod, "False", reason="Unschedulable", message=text)
            said = True
            await self.api.changed.wait()
        self.condition(pod, "True")

    def condition(self, pod, status, **more):
        pod["status"]["conditions"] = [{"type": "PodScheduled", "status": status, **more}]
        if self.there(pod):
            self.api.note("MODIFIED", "pods", pod)

    def refuse(self, pod):
        """Return whether a pod does not get as far as its process."""
        if not self.there(pod):
            return True
        image = pod["spec"]["containers"][0]["image"]
        if image in self.unpulled or image == BAD_IMAGE:
            self.refused[pod["metadata"]["name"]] = time.time()
            reason = "InvalidImageName" if image == BAD_IMAGE else "ErrImagePull"
            self.state(pod, {"waiting": {"reason": reason, "message": f"image {image}"}})
            return True
        if self.breaks:
            self.breaks -= 1
            pod["status"]["phase"] = "Failed"
            text = "failed to create containerd task: no space left on device"
            ended = {"exitCode": 128, "reason": "StartError", "message": text}
            self.state(pod, {"terminated": ended})
            return True
        return False

    def start(self, pod, notes):
        name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]
        assert container["command"] == ["python"]
        place = Path(self.folder / f"{pod['metadata']['uid']}.root")
        place.mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(place), "TMPDIR": str(place)}
        for each in container["env"]:
            if "value" in each:
                environment[each["name"]] = each["value"].replace(TERMINATION_LOG, str(notes))
            else:
                reference = each["valueFrom"]["secretKeyRef"]
                data = self.api.items["secrets"][reference["name"]]["data"][reference["key"]]
                environment[each["name"]] = base64.b64decode(data).decode()
        self.started[name] = time.time()
        with (self.folder / f"{name}.log").open("wb") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *container["args"]],
                env=environment,
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self.processes[name]

    def there(self, pod):
        return self.api.items["pods"].get(pod["metadata"]["name"]) is pod

    def state(self, pod, state):
        pod["status"]["containerStatuses"] = [{"name": "task", "state": state}]
        if self.there(pod):
            self.api.note("MODIFIED", "pods", pod)


async def ended(process):
    """Return the exit code of a process once it has ended."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    handle = os.pidfd_open(process.pid)
    loop.add_reader(handle, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    return process.wait()
