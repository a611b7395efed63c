"""The plan of an import from Airflow: what is created, changed, kept or left out, and why."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from pubsubflow.airflow.transfer.exports import AirflowPool, AirflowVariable
from pubsubflow.airflow.transfer.source import AirflowSource
from pubsubflow.errors import InvalidInput
from pubsubflow.model.connections import MASK, Connection, read_connection
from pubsubflow.model.values.variables import make_variable

Kind = Literal["connection", "variable", "pool", "dag"]
Action = Literal["create", "change", "same", "keep", "skip"]
"""`keep`: another one of the name is here, and is not to be overwritten."""

_DEFAULT_POOL = "default_pool"


class ImportStep(Struct, frozen=True):
    """What is done with one thing.

    Attributes:
        remark: Why it is not imported, or what is missing of it.
        value: What is set: a connection, a variable, slots, or whether a DAG is paused.
    """

    kind: Kind
    name: str
    action: Action
    remark: str = ""
    value: Any = None


class PresentState(Struct, frozen=True):
    """What is here already.

    Attributes:
        connections: Name → connection; its secrets are masked.
        variables: Name → value; `***` for a secret one.
        pools: Name → slots, of those with a limit.
        paused: Id of a DAG → whether it is paused.
    """

    connections: Mapping[str, Connection]
    variables: Mapping[str, Any]
    pools: Mapping[str, int]
    paused: Mapping[str, bool]


def plan_import(
    source: AirflowSource, present: PresentState, *, overwrite: bool
) -> Iterator[ImportStep]:
    """Yield what is to be done, one step for each thing of the source.

    Args:
        source: What Airflow has.
        present: What is here.
        overwrite: Whether what is here under the same name is changed.
    """
    for name, fields in sorted(source.connections.items()):
        yield _connection(name, fields, present.connections.get(name), overwrite=overwrite)
    for name, variable in sorted(source.variables.items()):
        yield _variable(name, variable, present.variables, overwrite=overwrite)
    for name, pool in sorted(source.pools.items()):
        yield _pool(name, pool, present.pools.get(name), overwrite=overwrite)
    for name, paused in sorted(source.paused.items()):
        yield _dag(name, present.paused.get(name), paused=paused)


def _connection(
    name: str, fields: dict[str, Any], here: Connection | None, *, overwrite: bool
) -> ImportStep:
    try:
        made = read_connection(name, msgspec.json.encode(fields).decode())
    except InvalidInput as error:
        return ImportStep("connection", name, "skip", str(error))
    # The REST API answers with a mask; an export has the secret.
    known = here.secrets if here else {}
    masked = [field for field, value in made.secrets.items() if value == MASK]
    lost = [field for field in masked if field not in known]
    remark = ""
    if lost:
        commands = ", ".join(f"pubsubflow connections set {name} --secret {each}" for each in lost)
        remark = f"Airflow masks its {' and '.join(lost)}: {commands}"
        kept = {field: value for field, value in made.secrets.items() if field not in lost}
        made = msgspec.structs.replace(made, secrets=kept)
    # What a secret is here cannot be read: one that is given is a change.
    same = here is not None and not set(made.secrets) - set(masked) and _alike(made, here)
    return _step("connection", name, remark, made, here=here is not None, same=same, to=overwrite)


def _alike(made: Connection, here: Connection) -> bool:
    return (made.kind, made.uri, made.extra) == (here.kind, here.uri, here.extra)


def _variable(
    name: str, variable: AirflowVariable, here: Mapping[str, Any], *, overwrite: bool
) -> ImportStep:
    if variable.value == MASK:
        command = f"pubsubflow variables set {name} VALUE"
        return ImportStep("variable", name, "skip", f"Airflow masks its value: {command}")
    try:
        made = make_variable(name, value=variable.value, description=variable.description)
    except InvalidInput as error:
        return ImportStep("variable", name, "skip", str(error))
    known = name in here
    same = known and here[name] == made.value
    return _step("variable", name, "", made, here=known, same=same, to=overwrite)


def _pool(name: str, pool: AirflowPool, here: int | None, *, overwrite: bool) -> ImportStep:
    if name == _DEFAULT_POOL:
        remark = "tasks that name no pool are limited by workers alone"
        return ImportStep("pool", name, "skip", remark)
    if pool.slots < 0:
        return ImportStep("pool", name, "skip", "it has no limit, as a pool that is not set")
    remark = "deferred tasks use no slot here" if pool.include_deferred else ""
    known = here is not None
    return _step(
        "pool", name, remark, pool.slots, here=known, same=here == pool.slots, to=overwrite
    )


def _dag(name: str, here: bool | None, *, paused: bool) -> ImportStep:  # noqa: FBT001
    if here is None:
        return ImportStep("dag", name, "skip", "no file of it is loaded here yet")
    return ImportStep("dag", name, "same" if here == paused else "change", "", paused)


def _step(
    kind: Kind, name: str, remark: str, value: Any, *, here: bool, same: bool, to: bool
) -> ImportStep:
    action: Action = "change" if to else "keep"
    if same:
        action = "same"
    elif not here:
        action = "create"
    return ImportStep(kind, name, action, remark, value)
