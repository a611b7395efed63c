"""Loading of one DAG file: its import by the rules of Airflow's DagBag, and the DAGs it makes."""

import hashlib
import importlib
import importlib.util
import os
import re
import signal
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from airflow import settings
from airflow.sdk import DAG
from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.sdk.execution_time.supervisor import block_orm_access
from airflow.utils.file import might_contain_dag
from msgspec import Struct, field
from msgspec.structs import replace

from pubsubflow.airflow.findings import LoadError, Note
from pubsubflow.airflow.inside.legacy.context import install_old_attributes
from pubsubflow.airflow.inside.legacy.keywords import install_keywords
from pubsubflow.airflow.inside.loading.explain import LoadTimeout, explain, shorten
from pubsubflow.airflow.inside.loading.lookups import ImportComms, Values, answers_from
from pubsubflow.airflow.inside.loading.notes import NoteBook
from pubsubflow.airflow.inside.loading.owners import Owners
from pubsubflow.airflow.inside.loading.plugins import load_plugins
from pubsubflow.airflow.inside.loading.policies import accept, missing_templates
from pubsubflow.airflow.inside.loading.sources import TeamFinder, TeamLoader
from pubsubflow.airflow.inside.loading.warned import warnings_noted

_TEMPLATE_REMEDY = "put it beside the DAG file, or name its folder in template_searchpath"


class Loaded(Struct):
    """What a file has made.

    Attributes:
        dags: Id → DAG, without those that a cluster policy skips or refuses.
        notes: What is otherwise in Airflow 3; files are named from the folder of all files on.
        error: The exception, if the import failed.
        traceback: The user's part of its traceback.
        problems: Why the file, or single DAGs of it, could not be loaded.
        variables: Those that were read → how often.
        connections: Likewise.
        defaulted: Variables that were read and not found.
    """

    dags: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    error: BaseException | None = None
    traceback: str = ""
    problems: list[LoadError] = field(default_factory=list)
    variables: dict[str, int] = field(default_factory=dict)
    connections: dict[str, int] = field(default_factory=dict)
    defaulted: list[str] = field(default_factory=list)


def load(path: str, *, root: str, legacy: bool, values: Values | None = None) -> Loaded:
    """Import a DAG file and return its DAGs; whatever it raises becomes the error.

    It changes the process for good (`sys.path`, finders, the SDK's classes): call it once, in a
    process of its own.

    Args:
        path: The file: Python, or a zip of modules.
        root: The folder of all files, which is found on `sys.path`.
        legacy: Whether names and keywords of older versions are replaced.
        values: Where variables and connections come from that are read during the import; what
            answers the SDK in this process if left out.
    """
    # As they are written: names of modules and what bundles hold are below these, links or not.
    path, root = os.path.abspath(path), os.path.abspath(root)  # noqa: PTH100
    notes, owners = NoteBook(team_folders(root)), Owners(root)
    block_orm_access()
    # Airflow itself adds plugins and config alone.
    if root not in sys.path:
        sys.path.insert(0, root)
    TeamFinder(notes, owners, legacy=legacy).install()
    if legacy:
        install_keywords(notes)
        install_old_attributes()
    load_plugins(notes, owners, legacy=legacy)
    with answers_from(values) as lookups:
        found = _loaded(path, notes, owners, lookups, legacy=legacy)
    folders = [root, str(settings.AIRFLOW_HOME)]
    found.notes = [replace(each, file=shorten(each.file, folders)) for each in notes.notes()]
    found.problems = [replace(each, file=shorten(each.file, folders)) for each in found.problems]
    found.variables, found.connections = dict(lookups.variables), dict(lookups.connections)
    found.defaulted = sorted(set(lookups.missing_variables)) if found.error is None else []
    return found


def _loaded(
    path: str, notes: NoteBook, owners: Owners, lookups: ImportComms, *, legacy: bool
) -> Loaded:
    found = Loaded()
    with warnings_noted(notes):
        try:
            with _limited(path):
                made = _dags(path, notes, owners, legacy=legacy)
                found.dags = _accepted(made, found, notes, lookups)
        except BaseException as error:  # noqa: BLE001 - user code may raise anything
            found.error = error
            problem = explain(error, notes, lookups, file=path, legacy=legacy)
            found.problems.append(problem)
            found.traceback = problem.traceback
    return found


def team_folders(root: str) -> list[str]:
    """Return the folders whose files are the team's own.

    Args:
        root: The folder of the DAG files.
    """
    return [root, settings.PLUGINS_FOLDER or root, f"{settings.AIRFLOW_HOME}/config"]


def _accepted(
    made: list[Any], found: Loaded, notes: NoteBook, lookups: ImportComms
) -> dict[str, Any]:
    """Return the DAGs that pass all checks; the others are problems, one by one."""
    dags: dict[str, Any] = {}
    for dag in made:
        try:
            if accept(dag):
                dags[dag.dag_id] = dag
                for use in missing_templates(dag):
                    notes.add(dag.fileloc, 0, use, _TEMPLATE_REMEDY, "fails")
        except Exception as error:  # noqa: BLE001 - policies are user code
            problem = explain(error, notes, lookups, file=dag.fileloc, legacy=True)
            reason = f"DAG {dag.dag_id!r}: {problem.reason}"
            found.problems.append(
                LoadError(reason, problem.remedy, problem.file, problem.line, problem.traceback)
            )
    return dags


def _dags(path: str, notes: NoteBook, owners: Owners, *, legacy: bool) -> list[Any]:
    """Import a file and return its DAGs, registered ones first, each once."""
    DagContext.autoregistered_dags.clear()
    try:
        if path.endswith(".py") or not zipfile.is_zipfile(path):
            modules = [_import_file(path, notes, owners, legacy=legacy)]
        else:
            modules = list(_import_zip(path))
        # A set: their order is not that of the file.
        pairs = sorted(DagContext.autoregistered_dags, key=lambda pair: str(pair[0].dag_id))
    finally:
        DagContext.current_autoregister_module_name = None
        DagContext.autoregistered_dags.clear()
    known = {id(dag) for dag, _ in pairs}
    for module in modules:
        for value in list(vars(module).values()):
            if isinstance(value, DAG) and id(value) not in known:
                known.add(id(value))
                pairs.append((value, module))
    pairs = [(dag, by) for dag, by in pairs if not owners.is_foreign(dag, by, path)]
    for dag, module in pairs:
        dag.fileloc = getattr(module, "__file__", None) or path
    return [dag for dag, _ in pairs]


def _import_file(path: str, notes: NoteBook, owners: Owners, *, legacy: bool) -> ModuleType:
    # As Airflow names it: a file may look at its own name.
    digest = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
    name = f"unusual_prefix_{digest}_{re.sub(r'[.-]', '_', Path(path).stem)}"
    loader = TeamLoader(SourceFileLoader(name, path), path, notes, owners, legacy=legacy)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    DagContext.current_autoregister_module_name = name
    spec.loader.exec_module(module)
    return module


def _import_zip(path: str) -> Iterator[ModuleType]:
    """Import the modules at the top of an archive that may hold DAGs."""
    sys.path.insert(0, path)
    with zipfile.ZipFile(path) as archive:
        for each in archive.infolist():
            inside = Path(each.filename)
            if inside.suffix not in (".py", ".pyc") or len(inside.parts) > 1:
                continue
            if might_contain_dag(each.filename, True, archive):  # noqa: FBT003 - Airflow's order
                sys.modules.pop(inside.stem, None)
                DagContext.current_autoregister_module_name = inside.stem
                yield importlib.import_module(inside.stem)


@contextmanager
def _limited(path: str) -> Iterator[None]:
    """Raise in user code when a file takes longer than Airflow's settings allow."""
    seconds = float(settings.get_dagbag_import_timeout(path))
    if seconds <= 0:
        yield
        return
    started = time.monotonic()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        took = time.monotonic() - started
        raise LoadTimeout(f"loading takes longer than {seconds:g} s (it ran for {took:.1f} s)")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
