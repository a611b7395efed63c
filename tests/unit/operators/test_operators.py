"""Operators in-process, each against a server of its kind that the test runs."""

import asyncio
import json
import sqlite3
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP

from pubsubflow import DAG, BashOperator, Dataset, EmptyOperator
from pubsubflow.model.connections import make_connection
from pubsubflow.operators import (
    BranchPythonOperator,
    DbtOperator,
    EmailOperator,
    FileTransformOperator,
    HttpOperator,
    ShortCircuitOperator,
    SqlOperator,
)
from support.web_server import served

pytestmark = pytest.mark.anyio


async def run(operator, *, upstream=(), params=None, **test):
    """Run one operator in a DAG of its own; `operator` makes it."""
    with DAG("tried", params=params) as dag:
        operator()
    return await dag.atest(**test)


# Bash, branches


def test_bash_skips_replaces_its_environment_and_processes_its_output(monkeypatch):
    monkeypatch.setenv("FROM_WORKER", "worker")
    with DAG("tried") as dag:
        BashOperator(task_id="skips", bash_command="exit 99")
        BashOperator(task_id="other", bash_command="exit 3", skip_on_exit_code=(2, 3))
        BashOperator(task_id="fails", bash_command="exit 99", skip_on_exit_code=None)
        BashOperator(task_id="added", bash_command="echo $FROM_WORKER$MINE", env={"MINE": "!"})
        alone = {"MINE": "!", "PATH": "/usr/bin:/bin"}
        BashOperator(
            task_id="alone",
            bash_command="echo $FROM_WORKER$MINE",
            env=alone,
            append_env=False,
        )
        BashOperator(task_id="json", bash_command="echo '[1, 2]'", output_processor=json.loads)
    result = dag.test()
    assert result.states["skips"] == result.states["other"] == "skipped"
    assert result.states["fails"] == "failed"
    assert result.result("added") == "worker!"
    assert result.result("alone") == "!"
    assert result.result("json") == [1, 2]


def test_a_script_beside_the_dag_file_is_a_template(tmp_path):
    (tmp_path / "hello.sh").write_text("echo hello {{ params.who | sh }} | tr a-z A-Z\n")
    file = tmp_path / "flow.py"
    file.write_text(
        "from pubsubflow import DAG, BashOperator\n"
        "with DAG('scripted', params={'who': 'you; rm'}) as flow:\n"
        "    BashOperator(task_id='say', bash_command='hello.sh')\n"
    )
    names = {"__name__": "flow", "__file__": str(file)}
    exec(compile(file.read_text(), file, "exec"), names)
    assert names["flow"].test().result("say") == "HELLO YOU; RM"


def test_branch_and_short_circuit_decide_what_follows():
    with DAG("decides") as dag:
        branch = BranchPythonOperator(task_id="branch", python_callable=lambda: "left")
        branch >> [EmptyOperator(task_id="left"), EmptyOperator(task_id="right")]
        stop = ShortCircuitOperator(task_id="stop", python_callable=lambda: 0)
        stop >> EmptyOperator(task_id="after")
    states = dag.test().states
    assert (states["left"], states["right"]) == ("success", "skipped")
    assert states["after"] == "skipped"


# HTTP


def http(uri, **more):
    return {"http_default": make_connection("http_default", uri=uri, kind="http", **more)}


async def test_http_sends_credentials_to_its_own_server_alone():
    seen = []

    async def answer(request):
        seen.append((request.path, request.headers.get("Authorization")))
        if request.path == "/v1/moved":
            raise web.HTTPFound(request.app["elsewhere"])
        return web.json_response({"path": request.path_qs})

    async with (
        served(web.get("/{path:.*}", answer)) as other,
        served(web.get("/{path:.*}", answer)) as url,
    ):
        made = http(f"{url}/v1", secrets={"token": "hush"})

        def get(endpoint):
            return lambda: HttpOperator(task_id="get", endpoint=endpoint, method="GET")

        result = await run(get("orders?day={{ run.dag_id }}"), connections=made)
        assert result.result("get") == {"path": "/v1/orders?day=tried"}
        result = await run(get(f"{other}/far"), connections=made)
        assert result.result("get") == {"path": "/far"}
    assert seen == [("/v1/orders", "Bearer hush"), ("/far", None)]


async def test_http_waits_for_what_a_server_has_accepted_and_for_a_busy_one():
    requests = []

    async def submit(request):
        requests.append(await request.text())
        if len(requests) == 1:
            return web.Response(status=429, headers={"Retry-After": "3600"})
        return web.Response(status=202, headers={"Location": "jobs/7"})

    async def job(_):
        requests.append("look")
        if requests.count("look") < 3:
            return web.Response(status=202, headers={"Retry-After": "60"})
        return web.json_response({"rows": 42})

    async with served(web.post("/submit", submit), web.get("/jobs/7", job)) as url:
        result = await run(
            lambda: HttpOperator(task_id="job", endpoint="submit", json={"n": 1}),
            connections=http(url),
        )
    assert result.result("job") == {"rows": 42}
    assert requests == ['{"n": 1}', '{"n": 1}', "look", "look", "look"]
    # The pauses were slept without a slot, on the run's clock.
    assert result.ended_at - result.started_at >= timedelta(seconds=3600 + 10 + 2 * 60)


async def test_a_further_attempt_begins_anew_what_has_failed():
    answers = iter(["bad", "good"])

    async def submit(_):
        return web.Response(text=next(answers))

    async with served(web.post("/", submit)) as url:
        result = await run(
            lambda: HttpOperator(
                task_id="job",
                response_check=lambda response: response.text == "good",
                response_filter=lambda response: len(response.text),
                retries=1,
            ),
            connections=http(url),
        )
    assert result.result("job") == 4
    assert result.tasks["job"][0].attempts == 2


# Mail


class Inbox:
    def __init__(self):
        self.mails = []

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802
        if address.startswith("nobody"):
            return "550 unknown"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content.decode()))
        return "250 taken"


@asynccontextmanager
async def mail_server():
    """Serve SMTP on a free port; gives the inbox and the port."""
    inbox = Inbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(inbox, hostname="test"), "127.0.0.1", 0)
    async with server:
        yield inbox, server.sockets[0].getsockname()[1]


async def test_a_mail_has_recipients_parts_and_attachments(tmp_path):
    file = tmp_path / "report.csv"
    file.write_text("a,b\n")
    async with mail_server() as (inbox, port):
        made = make_connection(
            "smtp_default", uri=f"smtp://127.0.0.1:{port}", extra={"from": "psf@example.org"}
        )
        result = await run(
            lambda: EmailOperator(
                task_id="mail",
                to="ann@example.org, nobody@example.org",
                bcc=["bob@example.org"],
                subject="Run {{ run.dag_id }}\n of today",
                text="plain",
                html_content="<b>{{ params.rows }}</b>",
                files=[file],
            ),
            params={"rows": 42},
            connections={"smtp_default": made},
        )
    assert result.result("mail") == ["ann@example.org", "bob@example.org"]
    ((sender, recipients, text),) = inbox.mails
    assert (sender, recipients) == ("psf@example.org", ["ann@example.org", "bob@example.org"])
    assert "Subject: Run tried of today" in text
    assert "bob@" not in text
    assert "<b>42</b>" in text
    assert 'filename="report.csv"' in text


# SQL


async def test_sql_binds_what_templates_hold(tmp_path):
    path = tmp_path / "x.db"
    made = {"sql_default": make_connection("sql_default", uri=f"sqlite:///{path}")}
    evil = "x'); DROP TABLE orders; --"
    statements = [
        "CREATE TABLE orders (id INTEGER, who TEXT, amount REAL)",
        "INSERT INTO {{ params.table | identifier }} VALUES (1, '{{ params.who }}', :amount)",
        "INSERT INTO orders VALUES (2, 'Ann: \":psf_0\"', {{ params.amount }})",
    ]
    params = {"who": evil, "amount": 2.5, "table": "orders"}
    result = await run(
        lambda: SqlOperator(
            task_id="fill",
            sql=statements,
            parameters={"amount": 7},
            outlets=[Dataset("sqlite://here/orders")],
        ),
        params=params,
        connections=made,
    )
    assert result.result("fill") == []
    assert result.emitted[0].extra == {"rows": 1}
    result = await run(
        lambda: SqlOperator(task_id="read", sql="SELECT * FROM orders ORDER BY id", limit=1),
        connections=made,
    )
    assert result.result("read") == [{"id": 1, "who": evil, "amount": 7.0}]
    assert any("rows_left_out" in line.message for line in result.tasks["read"][0].logs)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM orders").fetchone() == (2,)


async def test_sql_refuses_a_template_inside_of_a_text_and_undoes_a_failed_transaction(tmp_path):
    made = {"sql_default": make_connection("sql_default", uri=f"sqlite:///{tmp_path / 'x.db'}")}
    result = await run(
        lambda: SqlOperator(task_id="x", sql="SELECT '%{{ params.who }}%'"),
        params={"who": "a"},
        connections=made,
    )
    assert "stands inside of a text" in result.tasks["x"][0].error.message
    result = await run(
        lambda: SqlOperator(
            task_id="x", sql=["CREATE TABLE t (a)", "INSERT INTO nowhere VALUES (1)"]
        ),
        connections=made,
    )
    assert "nowhere" in result.tasks["x"][0].error.message


async def test_a_slow_statement_is_interrupted(tmp_path):
    made = {"sql_default": make_connection("sql_default", uri="sqlite:///")}
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    result = await run(
        lambda: SqlOperator(task_id="x", sql=endless, statement_timeout=0.2), connections=made
    )
    assert result.tasks["x"][0].error.type == "TimeoutError"


# Files


def test_a_file_is_transformed_on_its_way(tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("hello")

    def shout(before, after):
        after.write_text(before.read_text().upper())

    with DAG("files") as dag:
        first = FileTransformOperator(
            task_id="shout",
            source=str(source),
            destination=f"file://{tmp_path}/mid.txt",
            transform=shout,
            outlets=[Dataset("file:///mid")],
        )
        second = FileTransformOperator(
            task_id="rev",
            source=str(tmp_path / "mid.txt"),
            destination=str(target),
            transform="rev $SOURCE > $DESTINATION",
        )
        first >> second
    result = dag.test()
    assert result.state == "success", result.tasks
    assert target.read_text().strip() == "OLLEH"
    assert result.emitted[0].extra == {"bytes": 5}


# dbt


DBT = """#!/usr/bin/env python3
import json, sys
def say(name, msg, level="info", **node):
    print(json.dumps({"info": {"name": name, "msg": msg, "level": level},
                      "data": {"node_info": node} if node else {}}), flush=True)
say("MainReportVersion", " ".join(sys.argv[1:]))
relation = {"schema": "main", "alias": "orders", "relation_name": "r"}
say("LogModelResult", "OK orders", unique_id="model.j.orders", resource_type="model",
    node_status="success", node_relation=relation, materialized="table")
say("LogTestResult", "FAIL 1 t", "error", unique_id="test.j.t", resource_type="test",
    node_status="fail", node_relation=relation, materialized="test")
print("not json")
sys.exit(1 if "fail" in sys.argv else 0)
"""


async def test_each_model_of_dbt_is_an_event_and_a_failed_test_fails(tmp_path):
    program = tmp_path / "dbt"
    program.write_text(DBT)
    program.chmod(0o755)

    def dbt(**more):
        return lambda: DbtOperator(
            task_id="dbt",
            project_dir=str(tmp_path),
            executable=str(program),
            datasets="duckdb://here/jaffle",
            **more,
        )

    result = await run(dbt(select="+orders", vars={"day": "{{ run.dag_id }}"}))
    assert result.result("dbt") == {"model.j.orders": "success", "test.j.t": "fail"}
    (event,) = result.emitted
    assert event.dataset == Dataset("duckdb://here/jaffle/main/orders")
    assert event.extra["materialized"] == "table"
    first = result.tasks["dbt"][0].logs[0].message
    assert first.endswith('build --profiles-dir . --select +orders --vars {"day":"tried"}')
    result = await run(dbt(command=["build", "fail"]))
    assert result.tasks["dbt"][0].error.message == "test.j.t: FAIL 1 t"
    assert len(result.emitted) == 1
