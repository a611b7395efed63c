"""The part of the API of Kubernetes that the executor speaks, over HTTP; pods are real processes.

Objects have resource versions, watches get their changes in order, and what is created is checked
against Kubernetes' own schemas. Faults are injected by `fail` and `forget`.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import asyncio
import base64
import copy
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from contextlib import asynccontextmanager, suppress

import yaml
from aiohttp import web
from jsonschema import Draft202012Validator

from support.compose import ROOT

SCHEMAS = json.loads((ROOT / "tests/support/kubernetes_schemas/v1.37.json").read_text("utf-8"))
LABEL = re.compile("(([A-Za-z0-9][A-Za-z0-9_.-]{0,61})?[A-Za-z0-9])?")
SPECS = {"pods": "PodTemplateSpec", "secrets": "Secret"}
UNKNOWN_IMAGE, BAD_IMAGE = "nowhere/unknown:1", "Not An Image"


class KubernetesApi:
    """A cluster of one namespace.

    Attributes:
        requests: Method and path of each request.
        unpulled: Images that cannot be pulled.
    """

    def __init__(self, folder):
        self.folder = folder
        self.requests = []
        self.unpulled = {UNKNOWN_IMAGE}
        self.items = {"pods": {}, "secrets": {}}
        self.processes = {}
        self.history = []
        self.oldest = 0
        self.version = 0
        self.changed = asyncio.Event()
        self.failures = []
        self.tasks = set()

    @classmethod
    @asynccontextmanager
    async def start(cls, folder):
        api = cls(folder)
        app = web.Application()
        place = "/api/v1/namespaces/jobs/{kind}"
        app.router.add_get(place, api.listed)
        app.router.add_post(place, api.create)
        app.router.add_get(place + "/{name}", api.get)
        app.router.add_patch(place + "/{name}", api.patch)
        app.router.add_delete(place + "/{name}", api.delete)
        app.router.add_get(place + "/{name}/log", api.log)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        app.middlewares.append(api.counted)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        api.kubeconfig = folder / "kubeconfig"
        api.kubeconfig.write_text(yaml.safe_dump(kubeconfig(port)))
        try:
            yield api
        finally:
            for name in list(api.processes):
                api.kill(name)
            for each in api.tasks:
                each.cancel()
            await runner.cleanup()

    def fail(self, method, path, status, times=1, **headers):
        """Refuse the next requests whose path ends so."""
        self.failures += [(method, path, status, headers)] * times

    def forget(self):
        """Forget all changes until now: a watch from before answers 410."""
        self.oldest = self.version

    async def until(self, condition):
        """Wait for changes until a condition holds."""
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - also of what watches have reported
                await asyncio.sleep(0.01)

    def kill(self, name, number=signal.SIGKILL):
        """Send a signal to the process of a pod and to all that it started."""
        with suppress(ProcessLookupError, KeyError):
            os.killpg(self.processes[name].pid, number)

    def lose(self, name, reason):
        """Remove a pod from outside, as when its node is lost."""
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        pod = self.items["pods"].pop(name)
        pod["status"]["conditions"] = [condition]
        self.note("DELETED", "pods", pod)
        self.kill(name)

    @web.middleware
    async def counted(self, request, handler):
        self.requests.append((request.method, request.path))
        for each in self.failures:
            method, path, status, headers = each
            if request.method == method and request.path.endswith(path):
                self.failures.remove(each)
                return refusal(status, "injected", headers)
        return await handler(request)

    async def listed(self, request):
        kind = request.match_info["kind"]
        if request.query.get("watch") == "true":
            return await self.watch(request, kind)
        wanted = dict(each.split("=") for each in request.query["labelSelector"].split(","))
        found = [
            each
            for each in self.items[kind].values()
            if wanted.items() <= each["metadata"].get("labels", {}).items()
        ]
        after = int(request.query.get("continue", 0))
        page, rest = found[after : after + 2], found[after + 2 :]  # small, so that there are some
        about = {"resourceVersion": str(self.version)}
        if rest:
            about["continue"] = str(after + 2)
        return web.json_response({"kind": "List", "metadata": about, "items": page})

    async def watch(self, request, kind):
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        name = request.query["fieldSelector"].partition("=")[2]
        at = int(request.query["resourceVersion"])
        if at < self.oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            await response.prepare(request)
            await response.write(line("ERROR", gone))
            return response
        await response.prepare(request)
        await response.write(line("BOOKMARK", {"metadata": {"resourceVersion": str(at)}}))
        while request.transport is not None and not request.transport.is_closing():
            changed = self.changed
            for version, event, of, item in list(self.history):
                if version > at and of == kind and item["metadata"]["name"] == name:
                    await response.write(line(event, item) * 2)  # duplicates are allowed
                at = max(at, version)
            if at < self.oldest:
                return response
            await changed.wait()
        return response

    async def create(self, request):
        kind, body = request.match_info["kind"], await request.json()
        name = body["metadata"]["name"]
        checked = {key: body[key] for key in ("metadata", "spec")} if kind == "pods" else body
        schema = {"$ref": f"#/$defs/io.k8s.api.core.v1.{SPECS[kind]}", "$defs": SCHEMAS["$defs"]}
        faults = [each.message for each in Draft202012Validator(schema).iter_errors(checked)]
        labels = body["metadata"].get("labels", {}).values()
        faults += [f"a label {each!r}" for each in labels if not LABEL.fullmatch(each)]
        if faults:
            return refusal(422, f"invalid: {faults}")
        if name in self.items[kind]:
            return refusal(409, f'{kind} "{name}" already exists')
        body["metadata"]["uid"] = str(uuid.uuid4())
        if kind == "secrets":
            texts = body.pop("stringData", {})
            body["data"] = {k: base64.b64encode(v.encode()).decode() for k, v in texts.items()}
        else:
            body["status"] = {"phase": "Pending"}
        self.items[kind][name] = body
        self.note("ADDED", kind, body)
        if kind == "pods":
            self.soon(self.run(body))
        return web.json_response(body, status=201)

    async def get(self, request):
        item = self.items[request.match_info["kind"]].get(request.match_info["name"])
        return refusal(404, "not found") if item is None else web.json_response(item)

    async def patch(self, request):
        item = self.items[request.match_info["kind"]].get(request.match_info["name"])
        if item is None:
            return refusal(404, "not found")
        item["metadata"].update((await request.json())["metadata"])
        return web.json_response(item)

    async def delete(self, request):
        kind, name = request.match_info["kind"], request.match_info["name"]
        item = self.items[kind].get(name)
        if item is None:
            return refusal(404, "not found")
        if kind == "pods" and name in self.processes and "terminated" not in str(item["status"]):
            seconds = int(request.query.get("gracePeriodSeconds", 30))
            item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self.note("MODIFIED", kind, item)
            self.kill(name, signal.SIGTERM if seconds else signal.SIGKILL)
            self.soon(self.after(seconds, name))
        else:
            self.gone(kind, name)
        return web.json_response(item)

    async def log(self, request):
        file = self.folder / f"{request.match_info['name']}.log"
        if not file.exists():
            return refusal(404, "not found")
        lines = file.read_text(errors="replace").splitlines()[-int(request.query["tailLines"]) :]
        return web.Response(text="\n".join(lines))

    async def after(self, seconds, name):
        await asyncio.sleep(seconds)
        self.kill(name)

    def gone(self, kind, name):
        item = self.items[kind].pop(name, None)
        if item is None:
            return
        self.note("DELETED", kind, item)
        if kind == "pods":
            (self.folder / f"{name}.log").unlink(missing_ok=True)
        uid = item["metadata"]["uid"]
        for other, each in list(self.items["secrets"].items()):
            owners = each["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == uid for owner in owners):
                self.gone("secrets", other)

    async def run(self, pod):
        """Run the process of a pod, and say how it ends."""
        name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]
        image = container["image"]
        if image in self.unpulled or image == BAD_IMAGE:
            reason = "InvalidImageName" if image == BAD_IMAGE else "ErrImagePull"
            self.state(pod, {"waiting": {"reason": reason, "message": f"image {image}"}})
            return
        environment = {}
        for each in container["env"]:
            if "value" in each:
                environment[each["name"]] = each["value"]
            else:
                reference = each["valueFrom"]["secretKeyRef"]
                data = self.items["secrets"][reference["name"]]["data"][reference["key"]]
                environment[each["name"]] = base64.b64decode(data).decode()
        assert container["command"] == ["python"]
        path = os.pathsep.join(filter(None, sys.path))
        with (self.folder / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(  # noqa: ASYNC220 - it does not wait for it
                [sys.executable, *container["args"]],
                env={**os.environ, "PYTHONPATH": path, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.processes[name] = process
        pod["status"]["phase"] = "Running"
        self.state(pod, {"running": {}})
        code = await asyncio.to_thread(process.wait)
        self.kill(name)  # the container's other processes end with the first
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        number = code if code >= 0 else 128 - code
        reason = "Error" if code else "Completed"
        self.state(pod, {"terminated": {"exitCode": number, "reason": reason}})
        if "deletionTimestamp" in pod["metadata"]:
            self.gone("pods", name)

    def state(self, pod, state):
        pod["status"]["containerStatuses"] = [{"name": "task", "state": state}]
        if pod["metadata"]["name"] in self.items["pods"]:
            self.note("MODIFIED", "pods", pod)

    def note(self, event, kind, item):
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, event, kind, copy.deepcopy(item)))
        self.changed.set()
        self.changed = asyncio.Event()

    def soon(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def line(event, item):
    return json.dumps({"type": event, "object": item}).encode() + b"\n"


def refusal(status, message, headers=()):
    body = {"kind": "Status", "status": "Failure", "message": message, "code": status}
    return web.json_response(body, status=status, headers=dict(headers))


def kubeconfig(port):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "test", "user": {"token": "psf-test"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
