"""Names of attempts on a Dask scheduler: of their keys, claims and published datasets."""

from pubsubflow.executors import AttemptLabel

_SEPARATOR = ":"
_RESULT = "pubsubflow-result:"


def key_of(label: AttemptLabel, task_id: str) -> str:
    """Return the key of an attempt's future; dashboards group keys by the part before `-`."""
    return f"{task_id}-{label.name}"


def claim_of(name: str) -> str:
    """Return the name of the event that is set once an attempt has begun."""
    return f"pubsubflow-begun-{name}"


def dataset_of(label: AttemptLabel, installation: str) -> str:
    """Return the name of the dataset by which an attempt is found again."""
    return _SEPARATOR.join(("pubsubflow", installation, *label.to_dict().values()))


def result_of(kept_name: str) -> str:
    """Return the name of the dataset that keeps a result in the cluster, and of its claim."""
    return f"{_RESULT}{kept_name}"


def kept_of(name: object, keeper: str) -> str:
    """Return the result of a dataset's name; empty if it is not one of this keeper."""
    found = name.removeprefix(_RESULT) if isinstance(name, str) and name.startswith(_RESULT) else ""
    return found if found.startswith(f"{keeper}{_SEPARATOR}") else ""


def label_of(name: object, installation: str) -> AttemptLabel | None:
    """Return the attempt of a dataset's name; None if it is not one of this installation."""
    if not isinstance(name, str):
        return None
    prefix, _, rest = name.partition(_SEPARATOR)
    owner, _, rest = rest.partition(_SEPARATOR)
    if (prefix, owner) != ("pubsubflow", installation):
        return None
    try:
        fields = zip(AttemptLabel.__struct_fields__, rest.split(_SEPARATOR), strict=True)
        return AttemptLabel.from_dict(dict(fields))
    except ValueError:
        return None
