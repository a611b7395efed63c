"""DAG specs in a few words: `dag("d", task("a"), task("b", "a"), on="x & y")`."""

import ast
import itertools

from pubsubflow.model.schedule.conditions import AllOf, AnyOf, Condition, Input, Schedule, Tick
from pubsubflow.model.schedule.timetable import Cron, Every
from pubsubflow.model.spec import DagSpec, Factor, LoadedFile, SourceBundle, TaskSpec


def uri(name: str) -> str:
    return f"x://{name}"


def condition(text: str) -> Condition:
    """Read an expression over one-word datasets: `(a & b) | c`."""
    places = itertools.count()

    def read(node: ast.expr) -> Condition:
        if isinstance(node, ast.Name):
            return Input(next(places), uri(node.id))
        assert isinstance(node, ast.BinOp)
        kind = AllOf if isinstance(node.op, ast.BitAnd) else AnyOf
        sides = tuple(read(side) for side in sides_of(node, type(node.op)))
        return kind(sides)

    def sides_of(node: ast.expr, sign: type) -> list[ast.expr]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, sign):
            return [*sides_of(node.left, sign), node.right]
        return [node]

    return read(ast.parse(text, mode="eval").body)


def task(task_id: str, *after: str, over=(), inputs=(), emits=(), **options) -> dict:
    """Describe a task.

    `over` is what it is mapped over: numbers are lengths of literals, names are tasks.
    """
    named = {"after": after, "over": over, "inputs": inputs}
    return {"task_id": task_id, "outlets": tuple(map(uri, emits)), **named, **options}


def dag(
    dag_id: str,
    *tasks: dict,
    on: str | None = None,
    timetable: Cron | Every | None = None,
    file: str = "",
    **options,
) -> DagSpec:
    sides = [condition(on)] if on is not None else []
    if timetable is not None:
        sides.append(Tick(0, timetable))
    if sides:
        whole = AnyOf(tuple(sides)) if len(sides) > 1 else sides[0]
        options.setdefault("schedule", Schedule(whole))
    numbers = {given["task_id"]: number for number, given in enumerate(tasks)}
    file = file or f"{dag_id}.py"
    return DagSpec(
        dag_id,
        file,
        options.pop("source", f"hash of {file}"),
        tuple(_task(given, numbers) for given in tasks),
        **options,
    )


def _task(given: dict, numbers: dict[str, int]) -> TaskSpec:
    options = dict(given)
    after, over, inputs = options.pop("after"), options.pop("over"), options.pop("inputs")
    factors = tuple(
        Factor(f"arg{place}", length=what)
        if isinstance(what, int)
        else Factor(f"arg{place}", node=numbers[what])
        for place, what in enumerate(over)
    )
    upstream = {numbers[name] for name in (*after, *inputs)}
    upstream.update(factor.node for factor in factors if factor.node is not None)
    return TaskSpec(
        numbers[given["task_id"]],
        kind=options.pop("kind", "async"),
        upstream=tuple(sorted(upstream)),
        inputs=tuple(sorted(numbers[name] for name in inputs)),
        factors=factors,
        **options,
    )


def loaded(*dags: DagSpec, file: str = "", error: str | None = None, text: str = "") -> LoadedFile:
    """Return what importing one file gave."""
    file = file or dags[0].file
    source = dags[0].source if dags else f"hash of {file}{text}"
    bundle = SourceBundle(source, file, "/dags", {file: text})
    return LoadedFile(file, bundle, dags, error=error)
