"""Settings of bundles: which folders hold Airflow's DAG files, and the interpreter that has it."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

_Count = Annotated[int, Meta(ge=1, le=10_000)]


class AirflowBundleSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a bundle of Airflow's DAG files.

    Attributes:
        kind: `airflow`.
        path: The folder, relative to the DAGs folder; `.` for the DAGs folder itself. An absolute
            one may lie elsewhere; its files are known below the bundle's name.
        python: The interpreter that has Airflow and msgspec; the one beside the command `airflow`
            when None.
        requirements: In its place a file as pip reads it, of which an environment is made.
        airflow_home: The folder of `airflow.cfg`, `plugins/` and `config/`; an empty one, for the
            life of the daemon, when None.
        legacy: Whether names and keywords of Airflow 1.10 and 2 are replaced.
        attempts: How many attempts of one file run at once.
        files: How many files are kept imported.
        ahead: How many processes of each of these files are forked ahead of the next attempts.
        isolation: Whether an attempt has a process of its own, or one that has run others.
        env: Variables of the environment of its files and tasks.
    """

    kind: Literal["airflow"]
    path: str = "."
    python: Path | None = None
    requirements: Path | None = None
    airflow_home: Path | None = None
    legacy: bool = True
    attempts: _Count = 32
    files: _Count = 16
    ahead: Annotated[int, Meta(ge=0, le=100)] = 1
    isolation: Literal["fork", "reuse"] = "fork"
    env: dict[str, str] = {}

    def base(self, name: str) -> str:
        """Return the folder as bundles name it: empty for the DAGs folder itself.

        Args:
            name: Of the bundle.
        """
        if Path(self.path).is_absolute():
            return name
        return "" if self.path in ("", ".") else Path(self.path).as_posix().removeprefix("./")
