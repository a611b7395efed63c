"""Loading of one DAG file: its import, and the DAGs that it makes."""

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from airflow.sdk import DAG
from airflow.sdk.definitions._internal.contextmanager import DagContext
from msgspec import Struct, field


class Note(Struct, frozen=True):
    """A place in a file that was written for an older Airflow, and what stands for it."""

    file: str
    line: int
    text: str


class Loaded(Struct):
    """What a file has made.

    Attributes:
        dags: Id → DAG.
        notes: What was replaced.
        error: The exception, if the import failed.
        traceback: The user's part of its traceback.
    """

    dags: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    error: BaseException | None = None
    traceback: str = ""


def load(path: str, *, root: str, legacy: bool) -> Loaded:  # noqa: ARG001 - the legacy layer's
    """Import a DAG file and return its DAGs; whatever it raises becomes the error.

    Args:
        path: The file.
        root: The folder of all files, which is found on `sys.path`.
        legacy: Whether names and keywords of older versions are replaced.
    """
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        return Loaded(_import(path))
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        return Loaded(error=error, traceback=traceback.format_exc())


def _import(path: str) -> dict[str, Any]:
    name = f"unusual_prefix_{hashlib.sha256(path.encode()).hexdigest()[:16]}_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    DagContext.current_autoregister_module_name = name
    DagContext.autoregistered_dags.clear()
    try:
        spec.loader.exec_module(module)
        found = {dag.dag_id: dag for dag, _ in DagContext.autoregistered_dags}
    finally:
        DagContext.current_autoregister_module_name = None
        DagContext.autoregistered_dags.clear()
    for value in list(vars(module).values()):
        if isinstance(value, DAG):
            found.setdefault(value.dag_id, value)
    for dag in found.values():
        dag.fileloc = path
    return found
