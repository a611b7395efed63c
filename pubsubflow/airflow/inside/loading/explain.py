"""Reasons and remedies: why a file could not be loaded, and what to do about it."""

import linecache
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from airflow.exceptions import AirflowClusterPolicyViolation
from airflow.sdk.exceptions import AirflowDagCycleException
from msgspec import Struct

from pubsubflow.airflow.findings import LoadError
from pubsubflow.airflow.inside.legacy.old_modules import RemovedName
from pubsubflow.airflow.inside.legacy.scan import DATABASE_CALLS
from pubsubflow.airflow.inside.legacy.table import find_row
from pubsubflow.airflow.inside.loading.distributions import distribution_of
from pubsubflow.airflow.inside.loading.lookups import ImportComms
from pubsubflow.airflow.inside.loading.notes import NoteBook
from pubsubflow.airflow.inside.loading.policies import PolicyFailed

_DATABASE = re.compile(
    r"database access|metadatabase|airflow.db.not.allowed|Session must be set before", re.IGNORECASE
)
_ARGUMENTS = re.compile(r"\*\*kwargs: (\{.*\})", re.DOTALL)
_PROVIDER = re.compile(r"airflow\.providers\.[\w.]+")
_OLD_IMPORT = re.compile(r"from\s+([\w.]+)\s+import\s+\(?\s*(\w+)")
_ELSEWHERE = "install it in the bundle's interpreter, or put it below the folder of the files"
_SETTINGS = "see airflow_local_settings"
# The end of `cannot import name`.
_PATH = re.compile(r" \((?:/[^)]*|unknown location)\)$")
_STORE = "airflow.sdk has Variable.get, Connection.get and, in tasks, ti.xcom_pull"


class LoadTimeout(BaseException):
    """A file took longer to load than it may."""


def explain(
    error: BaseException, notes: NoteBook, lookups: ImportComms, *, file: str, legacy: bool
) -> LoadError:
    """Return why a file could not be loaded.

    Args:
        error: What its import raised.
        notes: Says which files are the team's.
        lookups: The variables and connections that it read.
        file: The DAG file.
        legacy: Whether old names were replaced.
    """
    where, line = _place(error, notes, file)
    reason, remedy = _reason(_Case(error, lookups, where, line, legacy))
    return LoadError(reason, remedy, where, line, _traceback(error, notes))


def _place(error: BaseException, notes: NoteBook, file: str) -> tuple[str, int]:
    """Return the innermost place of the team's; the file, if there is none."""
    if isinstance(error, SyntaxError) and error.filename and notes.is_own(error.filename):
        return error.filename, error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if notes.is_own(frame.filename)]
    return (own[-1].filename, own[-1].lineno or 0) if own else (file, 0)


def _traceback(error: BaseException, notes: NoteBook) -> str:
    first: TracebackType | None = error.__traceback__
    while first is not None and not notes.is_own(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    shown = first or error.__traceback__
    return "".join(traceback.format_exception(type(error), error, shown, chain=False))


class _Case(Struct):
    """An error, and what is known about it."""

    error: BaseException
    lookups: ImportComms
    file: str
    line: int
    legacy: bool

    @property
    def text(self) -> str:
        return str(self.error).strip()

    @property
    def shown(self) -> str:
        name = type(self.error).__name__
        return f"{name}: {_PATH.sub('', _first_line(self.text))}" if self.text else name


def _reason(case: _Case) -> tuple[str, str]:
    for read in (_missing_value, _not_python, _removed, _database, _timeout, _policy, _import):
        found = read(case)
        if found is not None:
            return found
    return case.shown, _remedy(case)


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")


def _missing_value(case: _Case) -> tuple[str, str] | None:
    for key in case.lookups.missing_variables:
        if re.search(rf"(?i)variable.*(?<![\w.-]){re.escape(key)}(?![\w-])", case.text):
            return (
                f"the variable {key!r} is read while the file loads, and there is none",
                f"pubsubflow variables set {key} VALUE",
            )
    for name in case.lookups.missing_connections:
        if re.search(rf"conn_?id.*{re.escape(name)}", case.text):
            return (
                f"the connection {name!r} is read while the file loads, and there is none",
                f"read it in a task, or set AIRFLOW_CONN_{name.upper()} in the bundle's env",
            )
    return None


def _not_python(case: _Case) -> tuple[str, str] | None:
    if not isinstance(case.error, SyntaxError):
        return None
    return f"SyntaxError: {case.error.msg}", "it is not Python of the bundle's interpreter"


def _removed(case: _Case) -> tuple[str, str] | None:
    if not isinstance(case.error, RemovedName):
        return None
    return case.text.partition(": ")[0], case.error.remedy


def _database(case: _Case) -> tuple[str, str] | None:
    if not _DATABASE.search(case.text):
        return None
    reason = "the file reads Airflow's database, which is not there"
    code = linecache.getline(case.file, case.line)
    for model, call in DATABASE_CALLS.items():
        if re.search(rf"\b{model}\b", code):
            return reason, f"in a task: {call}"
    return reason, _STORE


def _timeout(case: _Case) -> tuple[str, str] | None:
    if not isinstance(case.error, LoadTimeout):
        return None
    return case.text, "move what takes so long into a task, or set [core] dagbag_import_timeout"


def _policy(case: _Case) -> tuple[str, str] | None:
    if isinstance(case.error, AirflowClusterPolicyViolation):
        return f"a cluster policy refuses it: {_first_line(case.text)}", _SETTINGS
    if isinstance(case.error, PolicyFailed):
        return f"a cluster policy failed: {_first_line(case.text)}", _SETTINGS
    return None


def _import(case: _Case) -> tuple[str, str] | None:
    error = case.error
    if not isinstance(error, ImportError):
        return None
    name = error.name or ""
    if name.startswith("airflow.providers."):
        whole = _PROVIDER.search(linecache.getline(case.file, case.line))
        old = _OLD_IMPORT.search(linecache.getline(case.file, case.line))
        row = find_row(old[1], old[2]) if old else None
        # What the line imports may be there, and import another provider.
        named = [row.new_module if row else "", whole[0] if whole else "", name]
        module = next(each for each in named if each.startswith(name))
        remedy = f"install {distribution_of(module)} in the bundle's interpreter"
    elif name.partition(".")[0] != "airflow":
        remedy = _ELSEWHERE if isinstance(error, ModuleNotFoundError) else ""
    elif not case.legacy:
        remedy = "if it is a name of Airflow 2, set legacy = true for the bundle"
    else:
        remedy = "the bundle's Airflow has no such name: look for it in the release notes"
    return case.shown, remedy


def _remedy(case: _Case) -> str:
    given = _ARGUMENTS.search(case.text)
    if given is not None:
        return f"the operator of the installed provider does not take {given[1]}"
    if isinstance(case.error, AirflowDagCycleException):
        return "remove one of the dependencies"
    if isinstance(case.error, SystemExit):
        return "nothing at the top of a file may end the process"
    if "unexpected keyword argument" in case.text and not case.legacy:
        return "if it is a keyword of Airflow 2, set legacy = true for the bundle"
    return ""


def shorten(path: str, folders: Sequence[str]) -> str:
    """Return a path relative to the first of some folders that holds it."""
    for folder in folders:
        if Path(path).is_relative_to(folder):
            return str(Path(path).relative_to(folder))
    return path
