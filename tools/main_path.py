"""Counts the functions between a posted event and the first line of the task that it starts.

    python tools/main_path.py [--sync]        # counts, and a table by folder
    python tools/main_path.py --list          # every function in the order of its first entry
    python tools/main_path.py --json FILE     # the same for machines
    python tools/main_path.py --check         # exit code 1 above the targets

A daemon with its own NATS and Postgres runs one DAG, scheduled on one dataset. After a warm-up,
events are posted one by one, and `tools/recorder` writes down what each process does. The path
begins with the handler of `POST /api/v1/datasets/events`, goes through the manager until it sends
the task's order to NATS, or hands it to the daemon's own worker, goes on where the worker receives
the order, then in the runner, and ends with the first line of the task. What API and manager do
after the order is out delays nothing and does not count. A function counts when it was entered for
at least eight of ten events: heartbeats, sweeps and other work on the side come less often.
Comprehensions and lambdas belong to the function around them. Constructors are counted apart,
because they are not steps for a reader. What an idle function is, `tools/recorded.py` says.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.stack import Stack  # noqa: E402 - benchmarks and tools are not installed
from tools.recorded import Step, idle_functions, step_of  # noqa: E402

MOST_FUNCTIONS, MOST_FILES = 110, 30
WARM_UP, EVENTS, ENOUGH = 5, 10, 8
HANDLERS, BUS, WORKER = "pubsubflow/api/routes/", "pubsubflow/bus/", "pubsubflow/worker/"
SEND, TAKE = ".send", ".take"
BESIDE = ("pubsubflow/api/", "pubsubflow/manager/")
DAG_FILE = """
from pubsubflow import DAG, Context, Dataset, task

@task
{word}def first(ctx: Context) -> None:
    return None

with DAG("main_path", schedule=Dataset("main-path://in")):
    first()
"""


def record(folder: Path, *, is_async: bool) -> Iterator[list[Step]]:
    """Run a daemon and yield what was recorded from each POST to the first line of the task."""
    dag_file, trace = folder / "dags" / "main_path_dag.py", folder / "trace"
    dag_file.parent.mkdir()
    dag_file.write_text(DAG_FILE.format(word="async " if is_async else ""))
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT / "tools" / "recorder", ROOT)))
    os.environ["MAIN_PATH_RECORD"] = os.pathsep.join(map(str, (trace, ROOT, dag_file)))
    with Stack(dag_file.parent) as stack:
        wait_until(lambda: stack.get("/dags")["items"], "the DAG is not loaded")
        time.sleep(2)
        for number in range(WARM_UP + EVENTS):
            start = trace.stat().st_size
            stack.emit("main-path://in")
            lines = wait_until(lambda start=start: window_of(trace, start), "no task began")
            if number >= WARM_UP:
                yield [step_of(line) for line in lines]
            time.sleep(0.5)  # what follows the run's end is not a part of the next path


def wait_until(look: Callable[[], Any], complaint: str) -> Any:
    """Return the first true value of a function."""
    deadline = time.monotonic() + 60
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} within 60 s")
        time.sleep(0.05)
    return found


def window_of(trace: Path, start: int) -> list[str]:
    """Return the lines from a position of the recording to the first line of user code."""
    with trace.open() as file:
        file.seek(start)
        lines = file.read().split("\n")[:-1]
    ends = [index for index, line in enumerate(lines) if line[0] == "U"]
    return lines[: ends[0] + 1] if ends else []


def cut(window: list[Step]) -> tuple[list[Step], int]:
    """Return the steps that lead to the task, and how many statements went to Postgres."""

    def find(what: str, start: int, matches: Callable[[Step], bool]) -> int:
        for number in range(start, len(window)):
            if matches(window[number]):
                return number
        raise SystemExit(f"{what} was not recorded: has it another name or place by now?")

    def is_entry(step: Step, folder: str) -> bool:
        return step.kind == "C" and step.function.path.startswith(folder)

    begin = find("a handler", 0, lambda step: is_entry(step, HANDLERS))
    daemon, runner = window[begin].process, window[-1].process
    statement = find("a statement", begin, lambda step: step.kind == "S")
    send = find(
        "the order's sending",
        statement,
        lambda step: (
            (is_entry(step, BUS) and step.function.name.endswith(SEND))
            or (is_entry(step, WORKER) and step.function.name.endswith(TAKE))
        ),
    )
    receive = find("the worker", send, lambda step: is_entry(step, WORKER))
    # Back to what the event loop called: the receiving of a message starts in bus/.
    while receive > send and (window[receive].kind != "C" or window[receive].caller is not None):
        receive -= 1
    take_over = find("the runner", receive, lambda step: step.process == runner)
    path = [step for step in window[begin : send + 1] if step.process == daemon]
    statements = sum(step.kind == "S" for step in path)
    path += [
        step
        for step in window[receive:take_over]
        if step.process == daemon and not step.function.path.startswith(BESIDE)
    ]
    path += [step for step in window[take_over:] if step.process == runner]
    names = {daemon: "daemon", runner: "runner"}
    return [step._replace(process=names[step.process]) for step in path], statements


def summarise(paths: list[tuple[list[Step], int]]) -> dict[str, Any]:
    """Return what is true of every path, in the order of the last one."""
    orders = [
        dict.fromkeys((step.process, step.function) for step in steps if step.kind == "C")
        for steps, _ in paths
    ]
    times = Counter(each for order in orders for each in order)
    working = Counter(
        each for order, (steps, _) in zip(orders, paths, strict=True)
        for each in {function for _, function in order} - idle_functions(steps)
    )  # fmt: skip
    longest = max(orders, key=lambda order: sum(times[each] >= ENOUGH for each in order))
    entered = [each for each in longest if times[each] >= ENOUGH]
    idle = {function for _, function in entered if working[function] <= EVENTS - ENOUGH}
    path = [each for each in entered if not each[1].name.endswith("__init__")]
    files = [function.path for _, function in path]
    return {
        "functions": len(path),
        "files": len(set(files)),
        "idle": sum(function in idle for _, function in path),
        "constructors": len(entered) - len(path),
        "changes_of_file": sum(a != b for a, b in pairwise(files)),
        "statements": round(median(statements for _, statements in paths)),
        "path": [
            {"process": process, **function._asdict(), "idle": function in idle}
            for process, function in path
        ],
    }


def show(found: dict[str, Any], *, whole: bool) -> None:
    """Print the counts, a table by folder and, if wanted, the path."""
    for name, value in found.items():
        if name != "path":
            print(f"{name.replace('_', ' '):16}{value:5}")
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    files = {each["path"] for each in found["path"]}
    for each in found["path"]:
        row = rows[str(Path(each["path"]).parent)]
        row.update(functions=1, idle=each["idle"])
        row["files"] = sum(Path(file).parent == Path(each["path"]).parent for file in files)
    print(f"\n{'folder':34}functions  files   idle")
    for folder, row in sorted(rows.items(), key=lambda item: -item[1]["functions"]):
        print(f"{folder:34}{row['functions']:9}{row['files']:7}{row['idle']:7}")
    for number, each in enumerate(found["path"] if whole else [], 1):
        mark = "idle" if each["idle"] else ""
        place = f"{each['path'].removeprefix('pubsubflow/')}:{each['line']}"
        print(f"{number:4} {each['process']:7}{mark:5}{place} {each['name']}")


def main() -> int:
    """Record, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="show every function in order")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--sync", action="store_true", help="take a task that is a plain function")
    parser.add_argument("--check", action="store_true", help="fail above the targets")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="main-path-") as folder:
        windows = record(Path(folder), is_async=not arguments.sync)
        found = summarise([cut(window) for window in windows])
    show(found, whole=arguments.list)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    above = found["functions"] > MOST_FUNCTIONS or found["files"] > MOST_FILES or found["idle"]
    return int(arguments.check and bool(above))


if __name__ == "__main__":
    sys.exit(main())
