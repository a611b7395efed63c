"""Virtual environments with Airflow, made from a file of requirements and kept."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pubsubflow.errors import ConfigError

_COMPLETE = ".complete"
_ALWAYS = "msgspec"


def environment_python(requirements: Path, folder: Path) -> str:
    """Return the interpreter of an environment with some requirements, which is made if need be.

    Args:
        requirements: A file as pip reads it, with Airflow and its providers; constraints may be
            named in it by a line `-c FILE-OR-URL`.
        folder: Where environments are kept, one for each content of such a file.

    Raises:
        ConfigError: The file cannot be read, or the installer fails.
    """
    try:
        content = requirements.read_bytes()
    except OSError as error:
        raise ConfigError(f"{requirements} cannot be read: {error.strerror}") from error
    version = ".".join(map(str, sys.version_info[:2]))
    digest = hashlib.sha256(version.encode() + content).hexdigest()[:16]
    place = folder / digest
    python = place / "bin" / "python"
    # Two commands at once make one environment: the second finds it complete.
    with _alone(folder, digest):
        if not (place / _COMPLETE).exists():
            # What was begun and not ended is not trusted.
            shutil.rmtree(place, ignore_errors=True)
            _make(place, python, requirements)
            (place / _COMPLETE).touch()
    return str(python)


@contextmanager
def _alone(folder: Path, digest: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(place: Path, python: Path, requirements: Path) -> None:
    wanted = ["-r", str(requirements.resolve()), _ALWAYS]
    uv = shutil.which("uv")
    if uv is not None:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(place)])
        _run([uv, "pip", "install", "--quiet", "--python", str(python), *wanted])
        return
    _run([sys.executable, "-m", "venv", str(place)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *wanted])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").split("\n")
        # The installers say the reason in lines that begin so; what follows is advice.
        begins = ("error", "  \u00d7")
        reasons = [line for line in lines if line.lower().startswith(begins)] or lines
        text = " ".join(reasons[0].split()) or f"exit code {done.returncode}"
        raise ConfigError(f"{' '.join(command[:4])} …: {text}")
