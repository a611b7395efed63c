import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from acme_plugins.crm import CRM, CrmExportOperator, check

from pubsubflow import dag
from pubsubflow.model.api.connection_types import misfits
from pubsubflow.model.connections import make_connection


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.headers["Authorization"] == "Bearer t0ken" else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps([{"path": self.path}]).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def crm():
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        yield make_connection(
            "crm_default", uri=uri, kind="crm", extra={"tenant": "eu"}, secrets={"token": "t0ken"}
        )
        server.shutdown()


def test_it_exports(crm):
    @dag
    def export():
        CrmExportOperator(task_id="rows", table="{{ run.dag_id }}")

    result = export.test(connections={"crm_default": crm})
    assert result.result("rows") == [{"path": "/export/export?tenant=eu"}]


def test_the_connection_type_is_checked(crm):
    assert misfits(crm, CRM) == []
    assert asyncio.run(check(crm)) == "the CRM of eu answers"
