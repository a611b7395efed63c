"""The state of DAGs: shown, set and reset."""

import msgspec

from pubsubflow.cli import output
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.errors import InvalidInput, NotFound


async def show_state(
    dag: str,
    name: str | None = None,
    /,
    *,
    set: str | None = None,
    reset: bool = False,
    target: Target = DEFAULT,
) -> None:
    """Show the values that a DAG keeps from run to run, or set or reset one.

    Args:
        dag: Id of the DAG.
        name: Name of a value, or the URI of a dataset; all values if left out.
        set: A JSON value to set it to.
        reset: Reset it, as if it had never been set.
        target: The daemon, and the format of the output.
    """
    if set is not None or reset:
        await _change(dag, name, set, reset=reset, target=target)
        return
    async with target.client() as client:
        found = [each async for each in client.state(dag, name=name)]
    if name is not None and not found:
        raise NotFound("value in the state", f"{name}; see `pubsubflow dags state {dag}`")
    if target.json:
        output.show_list(found)
        return
    listing = output.Listing(
        *("name", "value", "set by", "updated"), elastic=["name", "value"], times=["updated"]
    )
    for each in found:
        setter = f"{each.task_id} in {each.run_id}" if each.run_id else "hand"
        value = msgspec.json.encode(each.value).decode()
        listing.row(each.name, value, setter, output.brief(each.updated_at))
    listing.show(none="no state")


async def _change(
    dag: str, name: str | None, value: str | None, *, reset: bool, target: Target
) -> None:
    if name is None or (value is not None and reset):
        raise InvalidInput("name one value, and give --set or --reset")
    if value is None:
        async with target.client() as client:
            await client.reset_state(dag, name)
        output.show_result({"reset": name}, f"reset {name}", json=target.json)
        return
    try:
        given = msgspec.json.decode(value)
    except msgspec.DecodeError:
        raise InvalidInput(
            f"--set takes JSON, such as 42 or '\"2026-11-20\"', not {value}"
        ) from None
    async with target.client() as client:
        made = await client.set_state(dag, name, given)
    text = f"{name} is {msgspec.json.encode(made.value).decode()}"
    output.show_result(made, text, json=target.json)
