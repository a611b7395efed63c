"""Templates and `**context` in `dag.test()`: the names of Airflow, files, what is shown of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pubsubflow import (
    DAG,
    BashOperator,
    Cron,
    DefinitionError,
    Every,
    Operator,
    PythonOperator,
    dag,
    get_current_context,
    task,
)
from pubsubflow.authoring.runtime.context_names import NAMES
from pubsubflow.authoring.runtime.signatures import CONTEXT_NAMES
from pubsubflow.authoring.template_checks import check_templates, template_warnings
from pubsubflow.model.wire.worker_requests import PreviousRun
from pubsubflow.testing import attempts

TICK = datetime(2026, 11, 20, 6, 30, tzinfo=UTC)


class Text(Operator):
    """Returns its text as it was rendered."""

    template_fields = ("text",)
    template_ext = (".txt",)

    def __init__(self, *, text, **kwargs):
        self.text = text
        super().__init__(**kwargs)

    def execute(self, _):
        return self.text


def rendered(text, *, schedule=None, logical_time=TICK, **given):
    with DAG("d", schedule=schedule, params={"day": "x"}) as made:
        Text(task_id="t", text=text)
    return made.test(logical_time=logical_time, raise_on_error=True, **given).result("t")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ ds }} {{ ds_nodash }}", "2026-11-20 20261120"),
        ("{{ ts }}", "2026-11-20T06:30:00+00:00"),
        ("{{ ts_nodash }} {{ ts_nodash_with_tz }}", "20261120T063000 20261120T063000+0000"),
        ("{{ logical_date.hour }} {{ execution_date == logical_date }}", "6 True"),
        ("{{ macros.ds_add(ds, -20) }}", "2026-10-31"),
        ("{{ macros.ds_format(ds, '%Y-%m-%d', '%d.%m.%y') }}", "20.11.26"),
        ("{{ logical_date - macros.timedelta(hours=7) }}", "2026-11-19 23:30:00+00:00"),
        ("{{ macros.json.loads('[1]')[0] }}", "1"),
        ("{{ macros.dateutil.parser.parse('20 Nov 2026').month }}", "11"),
        (
            "{{ (logical_date - macros.dateutil.relativedelta.relativedelta(months=1)) | string }}",
            "2026-10-20 06:30:00+00:00",
        ),
        ("{{ macros.dateutil.tz.gettz('Europe/Warsaw') is none }}", "False"),
        ("{{ prev_start_date_success }} {{ prev_data_interval_end_success is none }}", "None True"),
        ("{{ dag.dag_id }} {{ task.task_id }} {{ ti.try_number }} {{ ti.map_index }}", "d t 1 -1"),
        ("{{ dag_run.conf.day }} {{ dag_run.conf['day'] }} {{ params.day }}", "x x x"),
        ("{{ run_id == dag_run.run_id == ti.run_id == ctx.run.run_id }}", "True"),
        ("{{ task_instance_key_str }}", "d__t__20261120"),
        ("{{ var.limit + 1 }} {{ var.value.limit }} {{ var.json.text.a }}", "4 3 1"),
        ("{{ var.nothing | default('none') }} {{ var.value.get('no', 'x') }}", "none x"),
        ("{{ conn.db.host }} {{ conn.db.login }} {{ conn.db.schema }}", "h ann sales"),
        ("{{ conn.nothing is defined }}", "False"),
    ],
)
def test_names_have_airflows_values(text, expected):
    variables = {"limit": 3, "text": '{"a": 1}'}
    connections = {"db": "postgres://ann:secret@h/sales"}
    assert rendered(text, variables=variables, connections=connections) == expected


@pytest.mark.parametrize(
    ("schedule", "start", "before"),
    [
        (Cron("30 6 * * *"), "2026-11-19T06:30:00+00:00", "2026-11-18T06:30:00+00:00"),
        (Cron("30 6 20 * *"), "2026-10-20T06:30:00+00:00", "2026-09-20T06:30:00+00:00"),
        (Every(timedelta(minutes=30)), "2026-11-20T06:00:00+00:00", "2026-11-20T05:30:00+00:00"),
        (None, "2026-11-20T06:30:00+00:00", "2026-11-20T06:30:00+00:00"),
    ],
)
def test_the_interval_goes_from_tick_to_tick(schedule, start, before):
    text = (
        "{{ data_interval_start.isoformat() }} {{ data_interval_end.isoformat() }} "
        "{{ prev_data_interval_start.isoformat() }} {{ prev_data_interval_end.isoformat() }}"
    )
    found = rendered(text, schedule=schedule).split()
    assert found == [start, "2026-11-20T06:30:00+00:00", before, start]


def test_a_run_without_a_tick_has_the_moment_of_its_creation():
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert rendered("{{ ds }}", logical_time=None, now=now) == "2026-01-02"


@pytest.mark.parametrize(
    ("tick", "expected"),
    [
        (TICK, "2026-11-19T06:30:00+00:00 2026-11-20T06:30:00+00:00 2026-11-20T06:31:00+00:00"),
        (None, "2026-11-20T06:29:00+00:00 2026-11-20T06:29:00+00:00 2026-11-20T06:31:00+00:00"),
    ],
)
def test_the_last_run_that_succeeded_is_read_once_and_only_where_it_is_used(
    monkeypatch, tick, expected
):
    minute, reads = timedelta(minutes=1), []

    def read(_):
        reads.append(1)
        return PreviousRun("r", tick, TICK - minute, TICK + minute)

    monkeypatch.setattr(attempts._Host, "fetch_previous_success", read)

    def used(prev_start_date_success=None, **context):
        start, end = (context[f"prev_data_interval_{each}_success"] for each in ("start", "end"))
        assert isinstance(end, datetime)
        assert start <= end < prev_start_date_success
        assert end - start == timedelta(days=1 if tick else 0)
        found = [start.isoformat(), f"{end:%Y-%m-%dT%H:%M:%S+00:00}"]
        return " ".join([*found, prev_start_date_success.isoformat()])

    with DAG("d", schedule=Cron("30 6 * * *")) as made:
        PythonOperator(task_id="unused", python_callable=lambda **context: len(context))
        PythonOperator(task_id="used", python_callable=used)
    result = made.test(logical_time=TICK + timedelta(days=1), raise_on_error=True)
    assert result.result("used") == expected
    assert len(reads) == 1


@pytest.mark.parametrize("text", ["{{ macros.uuid.os }}", "{{ ti._context }}", "{{ var.value }}"])
def test_a_template_reaches_no_module_and_nothing_private(text):
    if "var" in text:
        assert "NamedValue(" not in rendered(text)
        return
    with pytest.raises(DefinitionError, match="template field 'text'"):
        rendered(text)


def test_a_template_pulls_results_by_key():
    with DAG("d") as made:

        @task
        def load(ti=None):
            ti.xcom_push("rows", 3)
            return "done"

        text = "{{ ti.xcom_pull(task_ids='load', key='rows') }} {{ ti.xcom_pull('load') }}"
        load() >> Text(task_id="t", text=text)
    assert made.test(raise_on_error=True).result("t") == "3 done"


def test_a_python_callable_gets_what_it_asks_for():
    seen = {}

    def whole(first, **context):
        seen.update(context, first=first)

    def named(ds, params, ti, run_id, templates_dict, other=5):
        return [ds, params["day"], ti.task_id, len(run_id), templates_dict["text"], other]

    async def named_async(ti, dag_run):
        return [ti.xcom_pull("named")[0], dag_run.conf["day"]]

    with DAG("d", params={"day": "x"}) as made:
        PythonOperator(task_id="whole", python_callable=whole, op_args=["{{ ds }}"])
        first = PythonOperator(
            task_id="named",
            python_callable=named,
            op_kwargs={"params": {"day": "given"}},
            templates_dict={"text": "on {{ ds }}"},
        )
        first >> PythonOperator(task_id="later", python_callable=named_async)
    result = made.test(logical_time=TICK, raise_on_error=True)
    named_result = ["2026-11-20", "given", "named", 36, "on 2026-11-20", 5]
    assert result.result("named") == named_result
    assert result.result("later") == ["2026-11-20", "x"]
    assert seen.keys() >= CONTEXT_NAMES
    assert (seen["first"], seen["ds"]) == ("2026-11-20", "2026-11-20")


def test_task_functions_get_names_that_default_to_none_and_context():
    with DAG("d") as made:

        @task
        def step(n, ds=None, ti=None, other=None, **context):
            return [n, ds, ti.task_id, other, context["ts_nodash"], "ti" in context]

        @task
        def mine(ds="mine", **more):
            return [ds, more]

        step(1)
        mine(a=1)
    result = made.test(logical_time=TICK, raise_on_error=True)
    assert result.result("step") == [1, "2026-11-20", "step", None, "20261120T063000", False]
    assert result.result("mine") == ["mine", {"a": 1}]


def test_get_current_context_is_there_in_any_function():
    def deep():
        return get_current_context()["ti"].task_id

    @dag
    def made():
        @task
        def step():
            return deep()

        step()

    assert made.test(raise_on_error=True).result("step") == "step"


def test_xcom_pull_takes_lists_and_gives_none_for_what_is_not_there():
    with DAG("d") as made:

        @task
        def one():
            return 1

        @task
        def two():
            return 2

        @task
        def read(ti=None):
            return [ti.xcom_pull(["one", "two"]), ti.xcom_pull("one", key="no")]

        [one(), two()] >> read()
    assert made.test(raise_on_error=True).result("read") == [[1, 2], None]


def test_a_file_beside_the_dag_file_is_the_template(tmp_path, monkeypatch):
    (tmp_path / "load.sh").write_text("echo {{ ds }}")
    (tmp_path / "mail.txt").write_text("Dear {{ params.day }}")
    source = (
        "from pubsubflow import DAG, BashOperator\n"
        "def define(Text):\n"
        "    with DAG('d', params={'day': 'x'}) as made:\n"
        "        BashOperator(task_id='b', bash_command='load.sh')\n"
        "        BashOperator.partial(task_id='m', bash_command='load.sh').expand(cwd=['.'])\n"
        "        BashOperator(task_id='c', bash_command='true; : other.sh ')\n"
        "        Text(task_id='t', text='mail.txt')\n"
        "    return made\n"
    )
    names = {"__file__": str(tmp_path / "dags.py"), "__name__": "dags"}
    exec(compile(source, str(tmp_path / "dags.py"), "exec"), names)
    made = names["define"](Text)
    result = made.test(logical_time=TICK, raise_on_error=True)
    assert result.result("b") == "2026-11-20"
    assert result.result("m") == ["2026-11-20"]
    assert result.result("t") == "Dear x"


def test_a_file_that_is_missing_is_named_with_its_neighbours():
    (Path(__file__).parent / "no.txt").unlink(missing_ok=True)
    with pytest.raises(DefinitionError, match=r"file 'no.txt' is not beside"), DAG("d"):
        Text(task_id="t", text="no.txt")


def test_what_was_rendered_is_kept_without_secrets():
    with DAG("d") as made:
        Text(task_id="t", text="{{ conn.db.url }} {{ var.a_token }} {{ ds }}")
        Text(task_id="plain", text="as it is")
    result = made.test(
        logical_time=TICK,
        connections={"db": "postgres://ann:pass-word@h/sales"},
        variables={"a_token": "hush-hush"},
    )
    shown = "postgres://ann:***@h/sales *** 2026-11-20"
    assert result.tasks["t"][0].rendered == {"text": shown}
    assert result.tasks["plain"][0].rendered == {}


def test_unquoted_values_of_others_are_warned_of_under_all_names():
    command = (
        "echo {{ ti.xcom_pull('a') }} {{ dag_run.conf.x }} {{ events }} {{ var.x }} "
        "{{ conn.x.host }} {{ ds }} {{ ti.xcom_pull('a') | sh }}"
    )
    with DAG("d") as made:
        BashOperator(task_id="t", bash_command=command)
    check_templates(made)
    assert len(template_warnings(made)) == 5


def test_every_name_of_a_callable_is_a_name_of_templates():
    assert NAMES.keys() >= CONTEXT_NAMES
