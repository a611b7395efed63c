"""DSL for DAG specs: `dag("d", task("a"), task("b", "a"), on="x & y")`."""

import ast
import itertools
from collections.abc import Mapping, Sequence

from pubsubflow.model.schedule.checks import CHECK_PREFIX, CHECK_TASK, CheckPolicy
from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Condition,
    DatasetInput,
    ScheduleSpec,
    Tick,
)
from pubsubflow.model.schedule.timetable import CronSpec, IntervalSpec
from pubsubflow.model.spec import DagSpec, LoadedFile, MappedArgument, TaskSpec


def uri(name: str) -> str:
    return f"x://{name}"


def condition(text: str) -> Condition:
    """Read an expression over one-word datasets: `(a & b) | c`."""
    indexes = itertools.count()

    def read(node: ast.expr) -> Condition:
        if isinstance(node, ast.Name):
            return DatasetInput(next(indexes), uri(node.id))
        assert isinstance(node, ast.BinOp)
        kind = AllOf if isinstance(node.op, ast.BitAnd) else AnyOf
        sides = tuple(read(side) for side in sides_of(node, type(node.op)))
        return kind(sides)

    def sides_of(node: ast.expr, sign: type) -> list[ast.expr]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, sign):
            return [*sides_of(node.left, sign), node.right]
        return [node]

    return read(ast.parse(text, mode="eval").body)


def all_of(uris: Sequence[str]) -> Condition:
    sides = tuple(DatasetInput(index, each) for index, each in enumerate(uris))
    return sides[0] if len(sides) == 1 else AllOf(sides)


def task(task_id: str, *after: str, over=(), inputs=(), emits=(), **options) -> dict:
    """Describe a task.

    Args:
        task_id: Its name.
        after: Names of the tasks before it.
        over: The arguments it is mapped over, a sequence or by name: a number is the length of a
            literal, a name is that of a task.
        inputs: Names of the tasks whose results it takes.
        emits: Names of the datasets it emits; `outlets=` takes whole URIs.
        options: Further fields of its TaskSpec.
    """
    named = {"after": after, "over": over, "inputs": inputs}
    return {"task_id": task_id, "outlets": tuple(map(uri, emits)), **named, **options}


def dag(
    dag_id: str,
    *tasks: dict,
    on: str | Sequence[str] = (),
    timetable: CronSpec | IntervalSpec | None = None,
    file: str = "",
    **options,
) -> DagSpec:
    """Build a DAG's spec.

    Args:
        dag_id: Its name.
        tasks: As `task` describes them.
        on: The condition of its schedule: an expression over names, or the URIs of datasets all of
            which it subscribes to. `schedule=` takes any other schedule.
        timetable: Starts it as well.
        file: `<dag_id>.py` by default.
        options: Further fields of its DagSpec.
    """
    sides = [condition(on) if isinstance(on, str) else all_of(on)] if on else []
    if timetable is not None:
        sides.append(Tick(0, timetable))
    if sides:
        whole = AnyOf(tuple(sides)) if len(sides) > 1 else sides[0]
        options.setdefault("schedule", ScheduleSpec(whole))
    numbers = {each["task_id"]: number for number, each in enumerate(tasks)}
    file = file or f"{dag_id}.py"
    return DagSpec(
        dag_id,
        file,
        options.pop("source", f"hash of {file}"),
        tuple(_task(each, numbers) for each in tasks),
        **options,
    )


def check(name: str, on: str, *, blocking: bool = True, severity="error", **options) -> DagSpec:
    """Build the spec of a check of a dataset, or of a pattern, by name."""
    watched = DatasetInput(0, uri(on), pattern="*" in on)
    schedule = ScheduleSpec(watched, CheckPolicy(blocking, severity))
    return dag(f"{CHECK_PREFIX}{name}", task(CHECK_TASK), schedule=schedule, **options)


def _task(described: dict, numbers: dict[str, int]) -> TaskSpec:
    options = dict(described)
    after, over, inputs = options.pop("after"), options.pop("over"), options.pop("inputs")
    named = over if isinstance(over, Mapping) else {f"arg{n}": each for n, each in enumerate(over)}
    factors = tuple(
        MappedArgument(name, length=source)
        if isinstance(source, int)
        else MappedArgument(name, node=numbers[source])
        for name, source in named.items()
    )
    upstream = {numbers[name] for name in (*after, *inputs)}
    upstream.update(factor.node for factor in factors if factor.node is not None)
    return TaskSpec(
        numbers[described["task_id"]],
        kind=options.pop("kind", "async"),
        upstream=tuple(sorted(upstream)),
        inputs=tuple(sorted(numbers[name] for name in inputs)),
        mapped_arguments=factors,
        **options,
    )


BUNDLE = "b" * 32


def loaded(
    *dags: DagSpec, file: str = "", error: str | None = None, text: str = "", hooks=()
) -> LoadedFile:
    """Return the result of importing one file, by default that of its DAGs."""
    file = file or dags[0].file
    source = dags[0].source if dags else f"hash of {file}{text}"
    return LoadedFile(file, BUNDLE, dags, hooks=hooks, error=error, source=source)
