"""The part of the API of Kubernetes that the executor speaks, over HTTP; pods are real processes.

Objects have resource versions, watches get their changes in order, and what is created is checked
against Kubernetes' own schemas. The node that runs pods is `kubernetes_node`; faults are injected
by `fail`, `hold`, `forget`, `cut` and the attributes.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import asyncio
import base64
import copy
import json
import re
import uuid
from contextlib import asynccontextmanager

import yaml
from aiohttp import web
from jsonschema import Draft202012Validator

from support.compose import ROOT
from support.kubernetes_node import KubernetesNode

SCHEMAS = json.loads((ROOT / "tests/support/kubernetes_schemas/v1.37.json").read_text("utf-8"))
LABEL = re.compile("(([A-Za-z0-9][A-Za-z0-9_.-]{0,61})?[A-Za-z0-9])?")
SPECS = {"pods": "PodTemplateSpec", "secrets": "Secret"}


class KubernetesApi:
    """A cluster.

    Attributes:
        requests: Method and path of each request.
        node: Runs the pods.
        watched: How many watches there were.
        quota: How many pods there may be at once; None for any number.
        watch_seconds: How long a watch lasts; None for as long as its client asks.
        slow_seconds: How late watches are.
    """

    def __init__(self, folder):
        self.node = KubernetesNode(folder, self)
        self.requests = []
        self.quota = None
        self.watch_seconds = None
        self.slow_seconds = 0.0
        self.items = {"pods": {}, "secrets": {}}
        self.history = []
        self.oldest = 0
        self.version = 0
        self.changed = asyncio.Event()
        self.failures = []
        self.holds = []
        self.watches = []
        self.watched = 0
        self.tasks = set()

    @classmethod
    @asynccontextmanager
    async def start(cls, folder):
        api = cls(folder)
        app = web.Application()
        place = "/api/v1/namespaces/{namespace}/{kind}"
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
        api.port = runner.addresses[0][1]
        api.kubeconfig = folder / "kubeconfig"
        api.kubeconfig.write_text(yaml.safe_dump(kubeconfig(api.port)))
        try:
            yield api
        finally:
            for each in api.tasks:
                each.cancel()
            await asyncio.gather(*api.tasks, return_exceptions=True)
            api.node.close()
            await runner.cleanup()

    def fail(self, method, path, status, times=1, **headers):
        """Refuse the next requests whose path ends so."""
        named = {key.replace("_", "-"): text for key, text in headers.items()}
        self.failures += [(method, path, status, named)] * times

    def hold(self, method, path):
        """Refuse the next request whose path ends so (503), but not before the event is set."""
        found = asyncio.Event()
        self.holds.append((method, path, found))
        return found

    def forget(self):
        """Forget all changes until now: watches from before get 410."""
        self.version += 1  # something else in the cluster has changed
        self.oldest = self.version
        self.wake()

    def cut(self):
        """Break off all watches, as when the server is started anew."""
        for each in self.watches:
            if each.transport is not None:
                each.transport.abort()

    async def until(self, condition):
        """Wait for changes until a condition holds."""
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - also of what watches have reported
                await asyncio.sleep(0.01)

    def taken_from(self, name, reason):
        """Remove a pod from outside, without its kubelet: as when its node is lost."""
        pod = self.items["pods"][name]
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        pod["status"]["conditions"] = [*pod["status"].get("conditions", []), condition]
        self.gone("pods", name)
        self.node.kill(name)

    @web.middleware
    async def counted(self, request, handler):
        self.requests.append((request.method, request.path))
        for each in self.failures:
            method, path, status, headers = each
            if request.method == method and request.path.endswith(path):
                self.failures.remove(each)
                return refusal(status, "injected", headers)
        for each in self.holds:
            method, path, event = each
            if request.method == method and request.path.endswith(path):
                self.holds.remove(each)
                await event.wait()
                return refusal(503, "injected")
        return await handler(request)

    async def listed(self, request):
        kind = request.match_info["kind"]
        if request.query.get("watch") == "true":
            return await self.watch(request, kind)
        labels = dict(pairs(request.query.get("labelSelector", "")))
        fields = {key.rpartition(".")[2]: value for key, value in pairs(field_selector(request))}
        fields["namespace"] = request.match_info["namespace"]
        about = [(each, each["metadata"]) for each in self.items[kind].values()]
        found = [
            each
            for each, data in about
            if labels.items() <= data.get("labels", {}).items() and fields.items() <= data.items()
        ]
        after = int(request.query.get("continue", 0))
        page, rest = found[after : after + 2], found[after + 2 :]  # small, so that there are some
        about = {"resourceVersion": str(self.version)}
        if rest:
            about["continue"] = str(after + 2)
        return web.json_response({"kind": "List", "metadata": about, "items": page})

    async def watch(self, request, kind):
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        name = dict(pairs(field_selector(request)))["metadata.name"]
        at = int(request.query["resourceVersion"])
        await response.prepare(request)
        await response.write(line("BOOKMARK", {"metadata": {"resourceVersion": str(at)}}))
        seconds = self.watch_seconds or float(request.query["timeoutSeconds"])
        self.watches.append(request)
        self.watched += 1
        try:
            async with asyncio.timeout(seconds):
                await self.stream(response, kind, name, at)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self.watches.remove(request)
        return response

    async def stream(self, response, kind, name, at):
        while True:
            changed = self.changed
            if at < self.oldest:
                gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
                await response.write(line("ERROR", gone))
                return
            await asyncio.sleep(self.slow_seconds)
            for version, event, of, item in list(self.history):
                if version > at and of == kind and item["metadata"]["name"] == name:
                    await response.write(line(event, item) * 2)  # duplicates are allowed
                at = max(at, version)
            await changed.wait()

    async def create(self, request):
        kind, body = request.match_info["kind"], await request.json()
        name = body["metadata"]["name"]
        if faults := faults_of(kind, body):
            return refusal(422, f"invalid: {faults}")
        if name in self.items[kind]:
            return refusal(409, f'{kind} "{name}" already exists')
        if kind == "pods" and self.quota is not None and len(self.items["pods"]) >= self.quota:
            text = f"exceeded quota: few, requested: pods=1, limited: pods={self.quota}"
            return refusal(403, f'pods "{name}" is forbidden: {text}')
        body["metadata"]["uid"] = str(uuid.uuid4())
        body["metadata"]["namespace"] = request.match_info["namespace"]
        if kind == "secrets":
            texts = body.pop("stringData", {})
            body["data"] = {k: base64.b64encode(v.encode()).decode() for k, v in texts.items()}
        else:
            body["status"] = {"phase": "Pending"}
        self.items[kind][name] = body
        self.note("ADDED", kind, body)
        if kind == "pods":
            self.soon(self.node.run(body))
        return web.json_response(body, status=201)

    async def get(self, request):
        item = self.named(request)
        return refusal(404, "not found") if item is None else web.json_response(item)

    def named(self, request):
        """Return the object that a request names, if it is in that namespace."""
        item = self.items[request.match_info["kind"]].get(request.match_info["name"])
        place = request.match_info["namespace"]
        return item if item and item["metadata"]["namespace"] == place else None

    async def patch(self, request):
        item = self.named(request)
        if item is None:
            return refusal(404, "not found")
        item["metadata"].update((await request.json())["metadata"])
        return web.json_response(item)

    async def delete(self, request):
        kind, name = request.match_info["kind"], request.match_info["name"]
        item = self.named(request)
        if item is None:
            return refusal(404, "not found")
        seconds = int(request.query.get("gracePeriodSeconds", 30))
        if kind == "pods" and seconds and self.node.runs(item):
            item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self.note("MODIFIED", kind, item)
            self.soon(self.node.stop(name, seconds))
        else:
            self.gone(kind, name)  # by force: it does not wait for the kubelet
            self.node.kill(name)
        return web.json_response(item)

    async def log(self, request):
        name = request.match_info["name"]
        text = self.node.output(name) if self.named(request) else None
        if text is None:
            return refusal(404, "not found")
        lines = text.splitlines()[-int(request.query["tailLines"]) :]
        return web.Response(text="\n".join(lines))

    def gone(self, kind, name):
        """Forget an object, and the secrets that belong to it."""
        item = self.items[kind].pop(name, None)
        if item is None:
            return
        self.note("DELETED", kind, item)
        uid = item["metadata"]["uid"]
        for other, each in list(self.items["secrets"].items()):
            owners = each["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == uid for owner in owners):
                self.gone("secrets", other)

    def note(self, event, kind, item):
        """Write a change into the history."""
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, event, kind, copy.deepcopy(item)))
        self.wake()

    def wake(self):
        self.changed.set()
        self.changed = asyncio.Event()

    def soon(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def faults_of(kind, body):
    """Return what is wrong with an object by Kubernetes' schema and by its rule for labels."""
    checked = {key: body[key] for key in ("metadata", "spec")} if kind == "pods" else body
    schema = {"$ref": f"#/$defs/io.k8s.api.core.v1.{SPECS[kind]}", "$defs": SCHEMAS["$defs"]}
    faults = [each.message for each in Draft202012Validator(schema).iter_errors(checked)]
    labels = body["metadata"].get("labels", {}).values()
    return faults + [f"a label {each!r}" for each in labels if not LABEL.fullmatch(each)]


def field_selector(request):
    return request.query.get("fieldSelector", "")


def pairs(selector):
    return [each.split("=") for each in selector.split(",") if each]


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
