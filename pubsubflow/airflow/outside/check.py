"""The check of a folder of Airflow's files: whether each of them runs here, and why not."""

import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pubsubflow.airflow.findings import (
    DagReport,
    FileFindings,
    FolderRequest,
    LoadError,
    Note,
    Surroundings,
)
from pubsubflow.airflow.outside.build import build_dag
from pubsubflow.airflow.outside.interpreter import Interpreter, environment
from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.airflow.protocol import decode_structure
from pubsubflow.authoring.registry import loading
from pubsubflow.errors import ConfigError, DefinitionError

_TARGET = "pubsubflow.airflow.inside.checking.main:main"

Outcome = Literal["runs", "note", "cannot"]
"""`note`: it runs, and some of it is otherwise in Airflow 3."""


class AirflowFile(Struct, frozen=True):
    """The report of one file.

    Attributes:
        file: Its path below the folder.
        outcome: Whether it runs.
        errors: Why not.
        notes: What is otherwise in Airflow 3, line by line.
        variables: Those that it reads while it is loaded → how often.
        connections: Likewise.
        defaulted: Variables that it did not find, and for which it has a default.
    """

    file: str
    outcome: Outcome
    dags: list[DagReport]
    errors: list[LoadError]
    notes: list[Note]
    variables: dict[str, int]
    connections: dict[str, int]
    defaulted: list[str]
    seconds: float


class AirflowReport(Struct, frozen=True):
    """The report of a folder.

    Attributes:
        counts: Outcome → files.
        settings: Options of `airflow.cfg` that decide what files mean.
        plugin_errors: Plugins that cannot be imported: file → error.
        listeners: Plugins with listeners, which are called for tasks alone.
        seconds: How long it took.
    """

    folder: str
    airflow: str
    python: str
    counts: dict[Outcome, int]
    dags: int
    tasks: int
    files: list[AirflowFile]
    settings: dict[str, str]
    plugin_errors: dict[str, str]
    listeners: list[str]
    seconds: float


def check_folder(
    place: Path,
    interpreter: Interpreter,
    *,
    home: Path | None = None,
    legacy: bool = True,
    variables: Mapping[str, str] | None = None,
    connections: Mapping[str, dict[str, Any]] | None = None,
    seconds: float = 120.0,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> AirflowReport:
    """Load all files below a folder in an interpreter with Airflow, and return the report.

    Args:
        place: The folder, or one file.
        interpreter: Where they are loaded.
        home: `AIRFLOW_HOME`; that of the environment if left out, else an empty folder.
        legacy: Whether names and keywords of older versions are replaced.
        variables: What variables hold while files are loaded.
        connections: Likewise connections, as fields of Airflow's.
        seconds: How long a file may take at most, whatever `airflow.cfg` says.
        on_progress: Called with the number of files that are done, and of all.

    Raises:
        ConfigError: The folder does not exist, or the process there fails.
    """
    if not place.exists():
        raise ConfigError(f"{place} does not exist: name the folder of the DAG files")
    root = place if place.is_dir() else place.parent
    request = FolderRequest(
        str(place.resolve()),
        str(root.resolve()),
        legacy,
        dict(variables or {}),
        dict(connections or {}),
        seconds,
    )
    with _home(home) as folder, tempfile.TemporaryFile() as complaints:
        lines = _lines(interpreter, request, folder, complaints)
        surroundings = msgspec.json.decode(next(lines), type=Surroundings)
        found = []
        for line in lines:
            found.append(msgspec.json.decode(line, type=FileFindings))
            on_progress(len(found), surroundings.files)
    return _report(place, surroundings, found)


@contextmanager
def _home(given: Path | None) -> Iterator[str]:
    """Yield `AIRFLOW_HOME`: importing Airflow makes a folder there."""
    known = str(given.resolve()) if given else environment().get("AIRFLOW_HOME")
    if known is not None:
        yield known
        return
    with tempfile.TemporaryDirectory(prefix="pubsubflow-airflow-") as made:
        yield made


def _lines(
    interpreter: Interpreter, request: FolderRequest, home: str, complaints: IO[bytes]
) -> Iterator[bytes]:
    """Yield what the process prints, line by line.

    Raises:
        ConfigError: It ends before it has printed all.
    """
    with subprocess.Popen(
        interpreter.command(_TARGET),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        env=environment(home),
    ) as process:
        try:
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            assert process.stdout is not None  # noqa: S101
            # It reads all before it writes: neither waits for the other's pipe to be emptied.
            process.stdin.write(msgspec.json.encode(request))
            process.stdin.close()
            yield from process.stdout
        except BaseException:
            process.terminate()
            raise
        code = process.wait()
    if code:
        complaints.seek(0)
        text = complaints.read().decode(errors="replace").strip()
        last = text.splitlines()[-1] if text else f"exit code {code}"
        raise ConfigError(f"{interpreter.python} cannot load Airflow's files: {last}")


def _report(place: Path, there: Surroundings, found: list[FileFindings]) -> AirflowReport:
    ordered = (_built(each) for each in sorted(found, key=lambda each: each.file))
    files = [_judged(each) for each in _conflicts_added(ordered)]
    counts: Counter[Outcome] = Counter({"runs": 0, "note": 0, "cannot": 0})
    counts.update(each.outcome for each in files)
    dags = [dag for each in files for dag in each.dags]
    return AirflowReport(
        folder=str(place),
        airflow=there.airflow,
        python=there.python,
        counts=dict(counts),
        dags=len(dags),
        tasks=sum(len(dag.tasks) for dag in dags),
        files=files,
        settings=there.settings,
        plugin_errors=there.errors,
        listeners=there.listeners,
        seconds=round(there.seconds + sum(each.seconds for each in found), 3),
    )


def _built(found: FileFindings) -> FileFindings:
    """Return the findings, with an error for each DAG that a daemon could not make."""
    errors = list(found.errors)
    place = BundlePlace("check", legacy=True, folder="", root="", file=found.file)
    for encoded in found.structures:
        structure = decode_structure(encoded)
        try:
            with loading(found.file):
                build_dag(structure, place).to_spec(found.file, "")
        except DefinitionError as error:
            errors.append(LoadError(str(error), "", found.file))
    return replace(found, errors=errors)


def _conflicts_added(found: Iterable[FileFindings]) -> Iterator[FileFindings]:
    """Yield the findings, with an error where another file has a DAG of the same id."""
    owners: dict[str, str] = {}
    for each in found:
        errors = list(each.errors)
        for dag in each.dags:
            first = owners.setdefault(dag.dag_id, each.file)
            if first != each.file:
                reason = f"DAG {dag.dag_id!r} is also in {first}"
                errors.append(LoadError(reason, "give one of them another dag_id", each.file))
        yield replace(each, errors=errors)


def _judged(found: FileFindings) -> AirflowFile:
    outcome: Outcome = "note" if found.notes or found.defaulted else "runs"
    if found.errors or any(note.kind == "fails" for note in found.notes):
        outcome = "cannot"
    return AirflowFile(
        found.file,
        outcome,
        found.dags,
        found.errors,
        found.notes,
        found.variables,
        found.connections,
        found.defaulted,
        round(found.seconds, 3),
    )
