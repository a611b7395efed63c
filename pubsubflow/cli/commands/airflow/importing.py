"""Imports connections, variables, pools and the paused state of DAGs from an Airflow."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from pubsubflow.airflow.transfer.importing import (
    Action,
    ImportStep,
    Kind,
    PresentState,
    plan_import,
)
from pubsubflow.airflow.transfer.rest import AirflowRest
from pubsubflow.airflow.transfer.source import AirflowSource, read_files
from pubsubflow.cli import output
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError
from pubsubflow.model.connections import Connection

_PLANNED = {
    "create": "would be created",
    "change": "would be changed",
    "same": "is the same here",
    "keep": "is another here and stays: --overwrite changes it",
    "skip": "is left out",
}
_DONE = {**_PLANNED, "create": "created", "change": "changed"}


class ImportedThing(Struct, frozen=True):
    """One thing of an import, in JSON; values are left out, as some are secret."""

    kind: Kind
    name: str
    action: Action
    remark: str


async def import_from_airflow(
    *,
    connections: Path | None = None,
    variables: Path | None = None,
    pools: Path | None = None,
    dags: Path | None = None,
    url: str | None = None,
    apply: bool = False,
    overwrite: bool = False,
    target: Target = DEFAULT,
) -> None:
    """Import connections, variables, pools and paused DAGs from Airflow; at first only a plan.

    What a running Airflow answers has no secrets: export files have them. The token for it is
    AIRFLOW_API_TOKEN, or it is requested for AIRFLOW_API_USER with AIRFLOW_API_PASSWORD.

    Args:
        connections: A file of `airflow connections export`: JSON, YAML or lines NAME=URI.
        variables: A file of `airflow variables export`.
        pools: A file of `airflow pools export`.
        dags: The output of `airflow dags list -o json`, which says which DAGs are paused.
        url: Of a running Airflow 3, in place of files.
        apply: Carry it out; if left out, it is only shown.
        overwrite: Change what is here under the same name.
        target: The daemon, and the format of the output.
    """
    source = _source(connections, variables, pools, dags, url)
    async with target.client() as client:
        present = await _present(client)
        steps = list(plan_import(source, present, overwrite=overwrite))
        if apply:
            for step in steps:
                await _carry_out(client, step)
    things = [ImportedThing(each.kind, each.name, each.action, each.remark) for each in steps]
    if target.json:
        output.show_json({"applied": apply, "things": things})
        return
    _show(things, applied=apply)


def _source(
    connections: Path | None,
    variables: Path | None,
    pools: Path | None,
    dags: Path | None,
    url: str | None,
) -> AirflowSource:
    files = read_files(connections=connections, variables=variables, pools=pools, dags=dags)
    given = any((connections, variables, pools, dags))
    if given == bool(url):
        raise ConfigError("name export files (--connections, --variables, …), or --url")
    if url is None:
        return files
    parts = urlsplit(url)
    name = os.environ.get("AIRFLOW_API_USER") or unquote(parts.username or "")
    password = os.environ.get("AIRFLOW_API_PASSWORD") or unquote(parts.password or "")
    user = (name, password) if name else None
    return AirflowRest(url, token=os.environ.get("AIRFLOW_API_TOKEN") or None, user=user).read()


async def _present(client: Client) -> PresentState:
    """Return what the daemon has; what its environment sets is not the store's."""
    return PresentState(
        {
            each.name: Connection(
                name=each.name, kind=each.kind, uri=each.uri, extra=each.extra, secrets=each.secrets
            )
            async for each in client.connections()
            if each.source == "store"
        },
        {each.name: each.value async for each in client.variables() if each.source == "store"},
        {each.name: each.slots async for each in client.pools() if each.slots is not None},
        {each.dag_id: each.paused for each in (await client.dags()).items},
    )


async def _carry_out(client: Client, step: ImportStep) -> None:
    if step.action not in ("create", "change"):
        return
    value = step.value
    if step.kind == "connection":
        await client.set_connection(
            value.name, kind=value.kind, uri=value.uri, extra=value.extra, secrets=value.secrets
        )
    elif step.kind == "variable":
        await client.set_variable(
            value.name, value.value, secret=value.secret, description=value.description
        )
    elif step.kind == "pool":
        await client.set_pool(step.name, value)
    else:
        await client.set_paused(step.name, paused=value)


def _show(things: list[ImportedThing], *, applied: bool) -> None:
    words = _DONE if applied else _PLANNED
    listing = output.Listing("kind", "name", "outcome", "remark", elastic=["remark"])
    for each in things:
        listing.row(each.kind, each.name, words[each.action], each.remark)
    listing.show(none="nothing to import")
    changes = sum(each.action in ("create", "change") for each in things)
    if changes and not applied:
        output.show(f"{changes} to import: --apply carries it out")
