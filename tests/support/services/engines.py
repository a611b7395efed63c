"""Stand-ins of a Docker engine, over TCP, and of spark-submit."""

import json
import re
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_LINES = ((1, b"3 rows\n"), (2, b"a warning\n"), (1, b"done\n"))
_CONTAINER = {"Id": "c0ffee", "Config": {"Tty": False}, "State": {"Running": False}}
_VERSION = {"Version": "28.0.0", "ApiVersion": "1.48", "MinAPIVersion": "1.24"}
_ANSWERS = {
    "GET /_ping": (200, "OK"),
    "GET /version": (200, _VERSION),
    "GET /images/json": (200, []),
    "POST /images/create": (200, {"status": "Status: Downloaded newer image for shop/rows:1"}),
    "POST /containers/create": (201, {"Id": "c0ffee", "Warnings": []}),
    "POST /containers/c0ffee/start": (204, None),
    "POST /containers/c0ffee/wait": (200, {"StatusCode": 0}),
    "GET /containers/c0ffee/json": (200, _CONTAINER),
    "DELETE /containers/c0ffee": (204, None),
}
# https://spark.apache.org/docs/latest/submitting-applications.html
_SPARK = """#!{python}
import json, pathlib, sys
known = {{"--master", "--conf", "--name", "--deploy-mode", "--executor-memory", "--verbose"}}
given, rest = {{}}, sys.argv[1:]
while rest and rest[0].startswith("--"):
    name = rest.pop(0)
    if name not in known:
        sys.exit(f"Error: Unrecognized option: {{name}}")
    given.setdefault(name, []).append("" if name == "--verbose" else rest.pop(0))
if not rest:
    sys.exit("Error: Missing application resource.")
pathlib.Path(__file__).with_name("submitted").write_text(json.dumps([given, rest]))
print("24/01/01 00:00:00 INFO SparkContext: Submitted application: rows")
"""


class Docker:
    """An engine that has no image: https://docs.docker.com/reference/api/engine

    Attributes:
        calls: What it did.
        made: The request by which the container was made.
    """

    def __init__(self):
        self.calls = []
        self.made = None
        self.started = threading.Event()

    @contextmanager
    def running(self):
        """Serve; gives the address as clients expect it."""
        handler = type("Handler", (_Engine,), {"docker": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="docker")
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    docker: Docker

    def _serve(self):
        parts = urlsplit(self.path)
        path = re.sub(r"^/v1\.\d+", "", parts.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = f"{self.command} {path}"
        self.docker.calls.append(name)
        if name == "POST /images/create":
            assert (query["fromImage"], query["tag"]) == ("shop/rows", "1"), query
        elif name == "POST /containers/create":
            self.docker.made = json.loads(body)
        elif name == "POST /containers/c0ffee/start":
            self.docker.started.set()
        if name == "POST /containers/c0ffee/attach":
            self._attach()
        else:
            self._say(*_ANSWERS.get(name, (404, {"message": f"page not found: {name}"})))

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def _attach(self):
        self.send_response(101, "UPGRADED")
        self.send_header("Content-Type", "application/vnd.docker.multiplexed-stream")
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "tcp")
        self.end_headers()
        self.docker.started.wait(60)
        for stream, line in _LINES:
            self.wfile.write(bytes([stream, 0, 0, 0]) + len(line).to_bytes(4, "big") + line)
        self.close_connection = True

    def _say(self, status, body):
        text = b"" if body is None else json.dumps(body).encode()
        if isinstance(body, str):
            text = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Say nothing."""


def write_spark(folder):
    """Write a command spark-submit; return the file in which it leaves what it was given."""
    script = Path(folder, "spark-submit")
    script.write_text(_SPARK.format(python=sys.executable))
    script.chmod(0o755)
    return script.with_name("submitted")
