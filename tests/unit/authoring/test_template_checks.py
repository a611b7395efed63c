"""Templates that can never be rendered are refused when their file is loaded."""

from datetime import date, timedelta

import msgspec
import pytest

from pubsubflow import DAG, BashOperator, Operator, Trigger
from pubsubflow.authoring.template_checks import check_templates
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
        ("echo {{ ds }}", "'ds' is unknown; known: ctx, params, run, task"),
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
