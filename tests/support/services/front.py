"""A proxy that answers HTTPS requests itself, under any name, with certificates of its own."""

import json
import ssl
import threading
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from support.certificates import Authority


class Request(Struct):
    """A request to a service."""

    method: str
    host: str
    path: str
    query: dict
    headers: dict
    body: bytes

    def json(self):
        assert self.headers.get("content-type", "").startswith("application/json"), self.headers
        return json.loads(self.body)


class Services:
    """Answers requests by the stand-in of their host, and keeps what it found wrong.

    Args:
        stands: Host → function of a request that returns a status and a body, or fails.

    Attributes:
        seen: `METHOD host/path` of all requests.
        wrong: What the stand-ins found wrong.
    """

    def __init__(self, stands):
        self._stands = stands
        self.seen = []
        self.wrong = []
        self.url = ""

    def answer(self, request):
        line = f"{request.method} {request.host}{request.path}"
        self.seen.append(line)
        try:
            return self._stands[request.host](request)
        except Exception as error:  # noqa: BLE001 - becomes the answer
            self.wrong.append(f"{line}: {type(error).__name__}: {error}")
            return 400, {"error": f"the stand-in refuses it: {error}"}

    @contextmanager
    def running(self, folder):
        """Serve; gives the variables of the environment that lead clients here."""
        authority = Authority(folder)
        files = authority.sign(*self._stands)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        handler = type("Handler", (_Handler,), {"services": self, "context": context})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="services")
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield {
                "HTTPS_PROXY": url,
                "https_proxy": url,
                "NO_PROXY": "127.0.0.1,localhost",
                "SSL_CERT_FILE": str(authority.path),
                "REQUESTS_CA_BUNDLE": str(authority.path),
            }
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    services: Services
    context: ssl.SSLContext
    host = ""

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.host = self.path.partition(":")[0]
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False

    def _serve(self):
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        if headers.get("content-encoding") == "deflate":
            body = zlib.decompress(body)
        query = dict(parse_qsl(parts.query))
        request = Request(self.command, self.host, parts.path, query, headers, body)
        status, found = self.services.answer(request)
        text = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        kind = "text/plain" if isinstance(found, str) else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def finish(self):
        super().finish()
        self.connection.close()  # what is inside a tunnel

    def log_message(self, *_):
        """Say nothing."""
