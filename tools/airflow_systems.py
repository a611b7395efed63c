"""Fetches the DAG files with which Airflow's providers are tested against their services.

    python -m tools.airflow_systems     # into .work, or says why not

They are in the source distributions on PyPI alone, below `tests/system`. The versions are those
that are pinned for the environment that loads the files: see `tools/airflow_env.py`.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from tools import airflow_env

# Twenty that have such files.
PROVIDERS = (
    "amazon",
    "apache-kafka",
    "apache-spark",
    "cncf-kubernetes",
    "common-io",
    "common-sql",
    "databricks",
    "dbt-cloud",
    "docker",
    "google",
    "http",
    "microsoft-azure",
    "microsoft-mssql",
    "mysql",
    "openlineage",
    "postgres",
    "sftp",
    "slack",
    "snowflake",
    "sqlite",
)
_INSIDE = ("tests", "system")
_COMPLETE = ".complete"


class NotFetchedError(Exception):
    """The files could not be fetched; the text says why."""


def distributions() -> list[str]:
    """Return the distributions of the providers as `name==version`.

    Raises:
        NotFetchedError: One is not pinned.
    """
    pins = {}
    # Those of a layer below hold where both name one.
    for file in airflow_env.requirements(airflow_env.systems()):
        lines = file.read_text("utf-8").splitlines()
        pins |= {line.partition("==")[0]: line for line in lines if not line.startswith("#")}
    names = [f"apache-airflow-providers-{each}" for each in PROVIDERS]
    missing = [name for name in names if name not in pins]
    if missing:
        raise NotFetchedError(f"pin {', '.join(missing)} in {airflow_env.REQUIREMENTS}")
    return [pins[name] for name in names]


def folder() -> Path:
    """Return where the files are kept: `PROVIDER/system/…`, for these versions."""
    digest = hashlib.sha256("\n".join(distributions()).encode()).hexdigest()[:12]
    return airflow_env.ROOT / ".work" / f"airflow-systems-{digest}"


def fetched() -> Path | None:
    """Return the folder if all files are there."""
    found = folder()
    return found if (found / _COMPLETE).exists() else None


def fetch() -> None:
    """Fetch the files, if they are not there.

    Raises:
        NotFetchedError: A distribution cannot be had.
    """
    if fetched() is not None:
        return
    target = folder()
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="airflow-systems-") as made:
        _download(made)
        for name in PROVIDERS:
            stem = f"apache-airflow-providers-{name}".replace("-", "_")
            (archive,) = Path(made).glob(f"{stem}-[0-9]*.tar.gz")
            _unpack(archive, target / name)
    (target / _COMPLETE).touch()


def _download(made: str) -> None:
    """Download the source distributions into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # What builds them is not among these, and may be a wheel.
    sources = ",".join(each.partition("==")[0] for each in distributions())
    command += ["--no-deps", "--no-binary", sources, "--dest", made]
    done = subprocess.run([*command, *distributions()], capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("ERROR: ")] or lines
        raise NotFetchedError(errors[-1] if errors else f"exit code {done.returncode}")


def _unpack(archive: Path, target: Path) -> None:
    """Unpack what is below `tests/system` of a source distribution as `system/…`."""
    with tarfile.open(archive) as packed:
        for member in packed.getmembers():
            parts = PurePosixPath(member.name).parts
            if member.isfile() and parts[1:3] == _INSIDE:
                member.name = str(PurePosixPath(*parts[2:]))
                packed.extract(member, target, filter="data")


def main() -> int:
    """Fetch the files, or say why not."""
    try:
        fetch()
    except NotFetchedError as error:
        print(f"no tests with the system tests' files of providers: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
