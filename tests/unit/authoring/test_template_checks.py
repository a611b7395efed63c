"""Templates that can never be rendered are refused when their file is loaded."""

from datetime import date, timedelta

import msgspec
import pytest

from pubsubflow import DAG, BashOperator, Operator, Trigger
from pubsubflow.authoring.template_checks import check_templates, template_warnings
from pubsubflow.errors import DefinitionError


class Params(msgspec.Struct):
    day: date = date(2026, 1, 1)


def checked(command, params=None):
    with DAG("d", params={"day": "x"} if params is None else params) as made:
        BashOperator(task_id="t", bash_command=command)
    check_templates(made)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ('a=(x y); echo "${#a[@]}"', "Missing end of comment tag .*put {% raw %}"),
        ("echo {{ params.day ", r"line 1.*put {% raw %}"),
        ("docker inspect --format '{{.State.Status}}' web", "put {% raw %}"),
        ("{% if params.day %}x", "put {% raw %}"),
        ("echo {{ params.day | shh }}", "No filter named 'shh'"),
        ("echo {{ prams.day }}", "'prams' is unknown; did you mean 'params'"),
        ("echo {{ dss }}", "'dss' is unknown; did you mean 'ds'"),
        ("echo {{ params.dya }}", "'dya' is not a param of its DAG; did you mean 'day'"),
        ("echo {{ params['dya'] }}", "'dya' is not a param"),
        ("echo {{ ctx.run.params.dya }}{{ run.params.dya }}", "'dya' is not a param"),
        ("{% for each in [1] %}{{ each }}{{ other }}{% endfor %}", "'other' is unknown"),
    ],
)
def test_a_template_that_can_never_be_rendered_says_why(command, says):
    with pytest.raises(DefinitionError, match=f"template field 'bash_command': .*{says}") as error:
        checked(command)
    assert (error.value.task_id, error.value.dag_id) == ("t", "d")
    assert error.value.file.endswith("test_template_checks.py")


@pytest.mark.parametrize(
    "command",
    [
        "echo {{ params.day }} {% raw %}${#a[@]} {{.State}}{% endraw %}",
        "{% set x = 1 %}{{ x }}{% for k, v in params.items() %}{{ k }}={{ v | sh }}{% endfor %}",
        "{{ params.get('zone', 'eu') }}{{ params.zone | default('eu') }}",
        "{% if params.zone is defined %}{{ range(3) | list }}{% endif %}",
        "{{ ctx.result('a').params.x }}{{ run.partition }}{{ task.task_id }}",
        "echo {#- a comment -#}",
        "run.sh",
    ],
)
def test_a_template_that_may_be_rendered_is_taken(command):
    checked(command)


def test_params_of_a_type_have_its_fields():
    checked("{{ params.day.isoformat() }}", Params)
    for command in ("{{ params.dya }}", "{{ params.items() }}"):
        with pytest.raises(DefinitionError, match="is not a param of its DAG"):
            checked(command, Params)


class Waits(Trigger):
    path: str


class Deep(Operator):
    template_fields = ("given",)

    def __init__(self, *, given=None, plain=None, **kwargs):
        self.given, self.plain = given, plain
        super().__init__(**kwargs)

    def execute(self, ctx):  # noqa: ARG002 - the method's signature
        return self.given


@pytest.mark.parametrize(
    "make",
    [
        lambda: Deep(task_id="t", given={"a": [("{{ nope }}",)]}),
        lambda: Deep.partial(task_id="t", given="{{ nope }}").expand(plain=[1]),
        lambda: Deep.partial(task_id="t").expand(given=["a", "{{ nope }}"]),
        lambda: Deep.partial(task_id="t").expand_kwargs([{"given": "{{ nope }}"}]),
    ],
)
def test_every_place_of_a_template_is_checked(make):
    with DAG("d") as made:
        make()
    with pytest.raises(DefinitionError, match="template field 'given': 'nope' is unknown"):
        check_templates(made)


def test_the_fields_of_a_start_trigger_are_templates():
    class Starts(Deep):
        start_trigger = Waits("{{ nope }}")

    with DAG("d") as made:
        Starts(task_id="t")
    with pytest.raises(DefinitionError, match="template field 'start_trigger': 'nope'"):
        check_templates(made)


def test_what_is_not_rendered_is_not_checked():
    with DAG("d") as made:
        Deep(task_id="t", plain="{{ nope }", retry_delay=timedelta(seconds=1))
        Deep.partial(task_id="m").expand(plain=["{{ nope }"])
    check_templates(made)


@pytest.mark.parametrize(
    ("command", "unquoted"),
    [
        ("echo {{ params.day }}", ["params.day"]),
        (
            "echo {{ params['day'] | upper }} {{ run.partition }}",
            ["params['day'] | upper", "run.partition"],
        ),
        ("{% for e in ctx.events %}echo {{ e.uri }}{% endfor %}", ["e.uri"]),
        ("{% set x = params.day %}{% set y = x %}echo {{ y }}", ["y"]),
        ("{% for k, v in params.items() %}{{ k | sh }}={{ v }}{% endfor %}", ["v"]),
        ("echo {{ ctx.result('rows') }}", ["ctx.result(…)"]),
        ("echo {{ 'a' ~ params.day }} {{ params.day if run.dag_id else 1 }}", ["…", "…"]),
        ("echo {{ ctx.events[0].extra.name }}", ["ctx.events[0].extra.name"]),
        ("echo {{ params.day | sh }} {{ params.items() | length }} {{ params.n | int }}", []),
        ("echo {{ run.run_id }} {{ task.task_id }} {{ run.logical_time }} {{ 1 + 1 }}", []),
        ("{% if params.day %}x{% endif %}", []),
    ],
)
def test_a_value_from_outside_in_a_shell_command_is_warned_of(command, unquoted):
    with DAG("d", params={"day": "x", "n": 1}) as made:
        BashOperator(task_id="t", bash_command=command, env={"DAY": "{{ params.day }}"})
    warnings = template_warnings(made)
    assert [line.split("{{ ")[1].split(" }}")[0] for line in warnings] == unquoted
    for line in warnings:
        assert line.startswith("DAG 'd', task 't', bash_command: ")
        assert "| sh }}" in line


def test_mapped_commands_are_warned_of():
    with DAG("d", params={"day": "x"}) as made:
        BashOperator.partial(task_id="a").expand(bash_command=["echo {{ params.day }}", "ls"])
        BashOperator.partial(task_id="b", bash_command="{{ params.day }}").expand(cwd=["/"])
    assert len(template_warnings(made)) == 2
