"""Findings of loading an Airflow file: notes, the error of a failed import, a report a file.

Both halves use these: the inside makes them, the outside shows them.
"""

from typing import Any, Literal

from msgspec import Struct

NoteKind = Literal["legacy", "changed", "ignored", "fails"]
"""`legacy`: works, and is written otherwise today; `changed`: works, perhaps with another meaning;
`ignored`: has no effect; `fails`: that line fails whenever it runs."""


class Note(Struct, frozen=True, order=True):
    """A place in a file that Airflow 3 has otherwise.

    Attributes:
        file: The file, absolute while it is loaded.
        line: Its line, counted from 1.
        use: What stands there.
        today: What to write today.
    """

    file: str
    line: int
    use: str
    today: str
    kind: NoteKind = "legacy"

    @property
    def text(self) -> str:
        """The note in one line, without its place."""
        return f"{self.use} → {self.today}" if self.today else self.use


class LoadError(Struct, frozen=True):
    """Why a file cannot be loaded, or a DAG of it cannot run.

    Attributes:
        reason: One sentence.
        remedy: What to do about it; empty when only the file's authors can know.
        file: Where it happened; empty if unknown.
        line: The line there; 0 if unknown.
        traceback: The part of the traceback that begins in the team's files.
    """

    reason: str
    remedy: str = ""
    file: str = ""
    line: int = 0
    traceback: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file and self.line else ""
        return f"{place}{self.reason}" + (f": {self.remedy}" if self.remedy else "")


class DagReport(Struct, frozen=True):
    """One DAG of a file: its id, and the ids of its tasks."""

    dag_id: str
    tasks: list[str]


class FolderRequest(Struct, frozen=True):
    """What the process that checks files gets.

    Attributes:
        place: A folder of DAG files, or one file.
        root: The folder that is on `sys.path` while files are loaded.
        legacy: Whether old names are replaced.
        variables: What variables hold while files are loaded.
        connections: Likewise connections, as fields of the SDK's.
        seconds: How long a file may take at most, whatever `airflow.cfg` says.
    """

    place: str
    root: str
    legacy: bool = True
    variables: dict[str, str] = {}
    connections: dict[str, dict[str, Any]] = {}
    seconds: float = 120.0


class FileFindings(Struct, frozen=True):
    """What loading one file has found.

    Attributes:
        file: Its path below the folder.
        errors: Of the file, or of single DAGs of it.
        seconds: How long it took.
        variables: Those that it reads while it is loaded → how often.
        connections: Likewise.
        defaulted: Variables that it did not find, and for which it has a default.
        structures: What a daemon would make DAGs of, each an encoded `DagStructure`.
    """

    file: str
    dags: list[DagReport] = []
    notes: list[Note] = []
    errors: list[LoadError] = []
    seconds: float = 0.0
    variables: dict[str, int] = {}
    connections: dict[str, int] = {}
    defaulted: list[str] = []
    structures: list[bytes] = []


class Surroundings(Struct, frozen=True):
    """The interpreter that files are checked in.

    Attributes:
        settings: Options of `airflow.cfg` that decide what files mean.
        errors: Plugins that cannot be imported: file → error.
        listeners: Plugins with listeners.
    """

    airflow: str
    python: str
    home: str
    settings: dict[str, str] = {}
    errors: dict[str, str] = {}
    listeners: list[str] = []
    files: int = 0
    seconds: float = 0.0
