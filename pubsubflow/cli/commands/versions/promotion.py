"""Promotion and rollback of versions of DAGs."""

import re
from typing import Annotated

from pubsubflow.cli import output
from pubsubflow.cli.commands.versions.versions import describe_version
from pubsubflow.cli.shell.parameter import Number, Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.resources import DagDetail

_Number = Annotated[int, Parameter(validator=Number(gte=1))]
_SHARE = re.compile(r"(\d+(?:\.\d+)?)(\s?%)?")


async def promote(
    dag: str,
    version: _Number | None = None,
    /,
    *,
    share: str | None = None,
    target: Target = DEFAULT,
) -> None:
    """Start runs with a version of a DAG, or a share of them.

    Without a version, the DAG follows its file again.

    Args:
        dag: Id of the DAG.
        version: Number of the version; the one that the DAG's file defines if left out.
        share: Share of the new runs that take it, such as 10% or 0.1; the others take the one in
            force.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        part = None if share is None else parse_share(share)
        found = await client.promote(dag, version, share=part)
    _report(found, target)


async def rollback(dag: str, /, *, to: _Number | None = None, target: Target = DEFAULT) -> None:
    """Start runs with an earlier version of a DAG again, until one is promoted.

    What a deployment brings meanwhile is stored and not put in force.

    Args:
        dag: Id of the DAG.
        to: Number of the version. If left out, the share of a version ends; where none has a
            share, the version before the one in force.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.rollback(dag, to=to)
    _report(found, target)


def parse_share(text: str) -> float:
    """Return a share, 0 to 1, that is written as `10%` or `0.1`.

    Raises:
        ConfigError: The text has another form, or is above 100 %.
    """
    found = _SHARE.fullmatch(text.strip())
    if found is None or float(found[1]) > (100 if found[2] else 1):
        raise ConfigError(f"--share takes a share such as 10% or 0.1, not {text!r}")
    return float(found[1]) / 100 if found[2] else float(found[1])


def _report(dag: DagDetail, target: Target) -> None:
    text = f"new runs of {dag.dag_id} take version {describe_version(dag)}"
    if dag.shares:
        parts = [f"{100 * each.share:.3g} % version {each.version}" for each in dag.shares]
        text = f"new runs of {dag.dag_id} take {', '.join(parts)}"
    output.show_result(dag, text, json=target.json)
