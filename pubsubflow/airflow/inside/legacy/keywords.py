"""Old keywords of DAGs and operators, renamed where these are made."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pubsubflow.airflow.findings import NoteKind
from pubsubflow.airflow.inside.loading.notes import NoteBook


class Keyword(NamedTuple):
    """One old keyword.

    Attributes:
        new: The keyword of today; None if it is dropped.
        today: What to write.
        kind: Of the note.
    """

    new: str | None
    today: str
    kind: NoteKind = "legacy"


def _renamed(new: str) -> Keyword:
    return Keyword(new, f"{new}=")


_LEFT_OUT = Keyword(None, "leave it out", "ignored")

DAG_KEYWORDS = {
    "schedule_interval": _renamed("schedule"),
    "timetable": _renamed("schedule"),
    "concurrency": _renamed("max_active_tasks"),
    "fail_stop": _renamed("fail_fast"),
    "default_view": _LEFT_OUT,
    "orientation": _LEFT_OUT,
    "full_filepath": _LEFT_OUT,
    "params_json": _LEFT_OUT,
    "sla_miss_callback": Keyword(None, "deadline=DeadlineAlert(...)", "ignored"),
}
"""Old keywords of `DAG` and `@dag`."""

OPERATOR_KEYWORDS = {
    "provide_context": Keyword(None, "leave it out: the context is always given"),
    "xcom_push": _renamed("do_xcom_push"),
    "task_concurrency": _renamed("max_active_tis_per_dag"),
    "sla": Keyword(None, "give the DAG a deadline=DeadlineAlert(...)", "ignored"),
}
"""Old keywords of every operator."""

OPERATOR_VALUES = {
    "trigger_rule": {
        "dummy": "always",
        "none_failed_or_skipped": "none_failed_min_one_success",
    },
}
"""Old values of keywords of every operator."""

CLASS_KEYWORDS = {
    "airflow.providers.standard.operators.trigger_dagrun.TriggerDagRunOperator": {
        "execution_date": _renamed("logical_date"),
        "python_callable": Keyword(None, "conf={...}", "ignored"),
    },
    "airflow.providers.standard.operators.weekday.BranchDayOfWeekOperator": {
        "use_task_execution_day": _renamed("use_task_logical_date"),
        "use_task_execution_date": _renamed("use_task_logical_date"),
    },
    "airflow.providers.standard.sensors.weekday.DayOfWeekSensor": {
        "use_task_execution_day": _renamed("use_task_logical_date"),
    },
    "airflow.providers.standard.operators.datetime.BranchDateTimeOperator": {
        "use_task_execution_date": _renamed("use_task_logical_date"),
    },
    "airflow.providers.slack.operators.slack_webhook.SlackWebhookOperator": {
        "http_conn_id": _renamed("slack_webhook_conn_id"),
    },
    "airflow.providers.amazon.aws.operators.lambda_function.LambdaInvokeFunctionOperator": {
        "log_type": _LEFT_OUT,
    },
    "airflow.providers.google.cloud.transfers.gcs_to_bigquery.GCSToBigQueryOperator": {
        "google_cloud_storage_conn_id": _renamed("gcp_conn_id"),
        "bigquery_conn_id": _renamed("gcp_conn_id"),
    },
    "airflow.providers.google.cloud.operators.kubernetes_engine.GKEDeleteClusterOperator": {
        "name": _renamed("cluster_name"),
    },
    "airflow.providers.cncf.kubernetes.operators.pod.KubernetesPodOperator": {
        "is_delete_operator_pod": Keyword(
            "on_finish_action", 'on_finish_action="delete_pod" or "keep_pod"'
        ),
        "resources": Keyword("container_resources", "container_resources="),
    },
    "airflow.providers.docker.operators.docker.DockerOperator": {
        "auto_remove": Keyword("auto_remove", 'auto_remove="success" or "never"'),
        "volumes": Keyword(None, "mounts=[Mount(...)]", "ignored"),
    },
}
"""Old keywords of one class."""


def _pod_resources(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    from kubernetes.client import V1ResourceRequirements  # noqa: PLC0415 - where pods are used

    return V1ResourceRequirements(
        requests={k[8:]: v for k, v in value.items() if k.startswith("request_")} or None,
        limits={k[6:]: v for k, v in value.items() if k.startswith("limit_")} or None,
    )


# Values that have another type today: keyword → what makes the value of today, None if it is one.
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "auto_remove": lambda value: "success" if value else "never",
    "is_delete_operator_pod": lambda value: "delete_pod" if value else "keep_pod",
    "resources": _pod_resources,
}
_POSITIONAL = ("description", "schedule", "start_date", "end_date")


def replace_keywords(
    given: dict[str, Any], keywords: Mapping[str, Keyword], of: str, notes: NoteBook
) -> None:
    """Rename old keywords in place.

    Args:
        given: The keywords of a call.
        keywords: Those that are old.
        of: What is called, for the note.
        notes: Gets a note for each.
    """
    for old in [each for each in given if each in keywords]:
        entry = keywords[old]
        value = given[old]
        if old == entry.new and not isinstance(value, bool):
            continue
        del given[old]
        notes.add_here(f"{of}({old}=)", entry.today, entry.kind)
        if entry.new is not None:
            convert = _CONVERSIONS.get(old)
            given.setdefault(entry.new, convert(value) if convert else value)


def install_keywords(notes: NoteBook) -> None:
    """Have DAGs and operators take old keywords in this process.

    Args:
        notes: Gets a note for each use.
    """
    # Airflow is here whenever this runs; the tables above are also read without it.
    from airflow.sdk import DAG  # noqa: PLC0415
    from airflow.sdk.bases import operator  # noqa: PLC0415

    _wrap_dag(DAG, notes)
    _wrap_operator(operator.BaseOperator, notes)
    _wrap_classes(type(operator.BaseOperator), notes)
    _wrap_partial(operator, notes)


def _wrap_dag(dag: Any, notes: NoteBook) -> None:
    before = dag.__init__

    @functools.wraps(before)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        replace_keywords(kwargs, DAG_KEYWORDS, "DAG", notes)
        for name, value in zip(_POSITIONAL, args[1:], strict=False):
            notes.add_here(f"DAG(..., {name})", f"{name}=")
            kwargs.setdefault(name, value)
        if isinstance(kwargs.get("default_args"), dict):
            defaults = dict(kwargs["default_args"])
            _replace_operator_keywords(defaults, "default_args", notes)
            kwargs["default_args"] = defaults
        before(self, *args[:1], **kwargs)

    dag.__init__ = __init__


def _wrap_operator(base: Any, notes: NoteBook) -> None:
    before = base.__init__

    @functools.wraps(before)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        _replace_operator_keywords(kwargs, type(self).__name__, notes)
        before(self, *args, **kwargs)

    # Airflow compares it with the function of the class: that is how it knows the outermost call.
    __init__.__wrapped__ = before.__wrapped__
    base.__init__ = __init__


def _replace_operator_keywords(given: dict[str, Any], of: str, notes: NoteBook) -> None:
    replace_keywords(given, OPERATOR_KEYWORDS, of, notes)
    for name, values in OPERATOR_VALUES.items():
        value = given.get(name)
        if isinstance(value, str) and value in values:
            notes.add_here(f"{of}({name}={str(value)!r})", f"{name}={values[value]!r}")
            given[name] = values[value]


def _wrap_classes(meta: Any, notes: NoteBook) -> None:
    make = meta.__call__

    def __call__(cls: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        for parent in cls.__mro__:
            keywords = CLASS_KEYWORDS.get(f"{parent.__module__}.{parent.__qualname__}")
            if keywords is not None:
                replace_keywords(kwargs, keywords, cls.__name__, notes)
        return make(cls, *args, **kwargs)

    meta.__call__ = __call__


def _wrap_partial(operator: Any, notes: NoteBook) -> None:
    """Rename keywords of `.partial()` before they are checked."""
    before = operator.validate_mapping_kwargs

    @functools.wraps(before)
    def validate_mapping_kwargs(op: Any, func: Any, value: dict[str, Any]) -> None:
        _replace_operator_keywords(value, f"{op.__name__}.{func}", notes)
        before(op, func, value)

    operator.validate_mapping_kwargs = validate_mapping_kwargs
