"""Virtual environments with Airflow, made from a file of requirements and kept."""

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pubsubflow.errors import ConfigError

_COMPLETE = ".complete"
_ALWAYS = "msgspec"


# Names of other files in such a file; what is behind an address is not ours to read.
_INCLUDED = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)[=\s]+([^\s#]+)", re.MULTILINE)


def environment_python(
    requirements: Path, folder: Path, *, on_make: Callable[[], None] = lambda: None
) -> str:
    """Return the interpreter of an environment with some requirements, which is made if need be.

    Args:
        requirements: A file as pip reads it, with Airflow and its providers; constraints may be
            named in it by a line `-c FILE-OR-URL`.
        folder: Where environments are kept, one for each content of such a file.
        on_make: Called before one is made, which takes a minute or more.

    Raises:
        ConfigError: The file cannot be read, or the installer fails.
    """
    version = ".".join(map(str, sys.version_info[:2]))
    content = b"\n".join(_contents(requirements.resolve(), set()))
    digest = hashlib.sha256(version.encode() + content).hexdigest()[:16]
    place = folder / digest
    python = place / "bin" / "python"
    # Two commands at once make one environment: the second finds it complete.
    with _alone(folder, digest):
        if not (place / _COMPLETE).exists():
            on_make()
            # What was begun and not ended is not trusted.
            shutil.rmtree(place, ignore_errors=True)
            _make(place, python, requirements)
            (place / _COMPLETE).touch()
    return str(python)


def _contents(file: Path, seen: set[Path]) -> Iterator[bytes]:
    """Yield what a file of requirements says, and the files that it names.

    Raises:
        ConfigError: One cannot be read.
    """
    seen.add(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    yield content
    for name in _INCLUDED.findall(content.decode(errors="replace")):
        other = (file.parent / name).resolve()
        if "://" not in name and other not in seen:
            yield from _contents(other, seen)


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
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(place)], requirements)
        _run([uv, "pip", "install", "--quiet", "--python", str(python), *wanted], requirements)
        return
    _run([sys.executable, "-m", "venv", str(place)], requirements)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *wanted], requirements)


def _run(command: list[str], requirements: Path) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        text = _reason(done.stderr.decode(errors="replace")) or f"exit code {done.returncode}"
        what = " ".join((Path(command[0]).name, *command[1:4]))
        raise ConfigError(f"{requirements} cannot be installed: {text} ({what} …)")


def _reason(output: str) -> str:
    """Return the line in which an installer says why it failed; what follows is advice."""
    lines = output.split("\n")
    for number, line in enumerate(lines):
        if line.lower().startswith("error"):
            return " ".join(line.split())
        if line.startswith("  \u00d7"):  # uv goes on in the next line
            return " ".join(" ".join(lines[number : number + 2]).split())
    return " ".join(lines[0].split())
