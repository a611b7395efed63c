"""The interpreter that has Airflow: found, probed, refused if it does not fit."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
from msgspec import Struct

from pubsubflow.errors import ConfigError

OLDEST = (3, 2)
_START = Path(__file__).resolve().parent.parent / "inside" / "start.py"
_PROBE = "pubsubflow.airflow.inside.probe:main"
_PROBE_SECONDS = 60.0


_OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class _Answer(Struct, frozen=True):
    python: str
    versions: dict[str, str | None]
    fingerprint: str
    folders: tuple[str, ...] = ()


class Interpreter(Struct, frozen=True):
    """An interpreter with Airflow.

    Attributes:
        python: Its path.
        version: Of Python.
        airflow: The version of Airflow.
        fingerprint: Changes with what is installed there.
        folders: Where distributions are installed.
    """

    python: str
    version: str
    airflow: str
    fingerprint: str
    folders: tuple[str, ...] = ()

    def command(self, target: str, *arguments: str) -> list[str]:
        """Return the command that calls a function of the inside there.

        Args:
            target: `package.module:function`.
            arguments: Its arguments.
        """
        return start_command(self.python, target, *arguments)


def start_command(python: str, target: str, *arguments: str) -> list[str]:
    """Return the command that calls a function of the inside; see `Interpreter.command`."""
    # Nothing of the place where pubsubflow is installed can be imported, and nothing of ours.
    return [python, "-P", str(_START), target, *arguments]


def find_python(options: str = "--python") -> str:
    """Return the interpreter of the `airflow` that is on the path.

    Args:
        options: What names an interpreter in its place, for the message.

    Raises:
        ConfigError: There is none, or it is not a script of a virtual environment.
    """
    script = shutil.which("airflow")
    if script is None:
        raise ConfigError(
            "no interpreter with Airflow is known, as the command airflow is not on the PATH: "
            "make one with `python3 -m venv …` and `pip install 'apache-airflow-core>=3.2' "
            f"msgspec`, and name it by {options}"
        )
    beside = Path(script).resolve().with_name("python")
    if not beside.exists():
        raise ConfigError(f"{script} has no python beside it: name one by {options}")
    return str(beside)


def probe(python: str) -> Interpreter:
    """Return what an interpreter has.

    Raises:
        ConfigError: It cannot be started, or lacks what the bridge to Airflow needs.
    """
    found = _answer(python)
    versions = found.versions
    airflow = versions["apache-airflow-core"]
    if airflow is None:
        raise ConfigError(f"{python} has no Airflow of version 3: {_install(python, 'airflow')}")
    if tuple(map(int, airflow.split(".")[:2])) < OLDEST:
        raise ConfigError(
            f"{python} has Airflow {airflow}, and at least {'.'.join(map(str, OLDEST))} is needed: "
            f"{_install(python, 'airflow')}; files of 1.10 and 2.x run with it"
        )
    if versions["msgspec"] is None:
        raise ConfigError(f"{python} has no msgspec: {_install(python, 'msgspec')}")
    return Interpreter(python, found.python, airflow, found.fingerprint, found.folders)


def _install(python: str, what: str) -> str:
    wanted = "'apache-airflow>=3.2' msgspec" if what == "airflow" else what
    return f"{python} -m pip install {wanted}"


def _answer(python: str) -> _Answer:
    try:
        done = subprocess.run(
            start_command(python, _PROBE),
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_PROBE_SECONDS,
            env=environment(),
        )
        # Sites may print at the start of every interpreter; the answer is the last line.
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=_Answer)
    except OSError as error:
        raise ConfigError(f"{python} cannot be started: {error.strerror}") from error
    except (IndexError, msgspec.DecodeError):
        last = next(iter(done.stderr.decode(errors="replace").splitlines()[-1:]), "no answer")
        raise ConfigError(
            f"{python} is not an interpreter of Python 3.11 or newer: {last}"
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{python} does not answer in {_PROBE_SECONDS:g} s") from None


def environment(home: str | None = None) -> dict[str, str]:
    """Return the environment of a process there: ours, without what points at our interpreter.

    Args:
        home: `AIRFLOW_HOME`, if it is not the environment's.
    """
    kept = {name: text for name, text in os.environ.items() if name not in _OWN}
    kept["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    return kept if home is None else kept | {"AIRFLOW_HOME": home}
