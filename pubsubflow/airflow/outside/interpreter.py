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


class _Answer(Struct, frozen=True):
    python: str
    versions: dict[str, str | None]


class Interpreter(Struct, frozen=True):
    """An interpreter with Airflow.

    Attributes:
        python: Its path.
        version: Of Python.
        airflow: The version of Airflow.
    """

    python: str
    version: str
    airflow: str

    def command(self, target: str, *arguments: str) -> list[str]:
        """Return the command that calls a function of the inside there.

        Args:
            target: `package.module:function`.
            arguments: Its arguments.
        """
        # Nothing of the place where pubsubflow is installed can be imported, and nothing of ours.
        return [self.python, "-P", str(_START), target, *arguments]


def find_python() -> str:
    """Return the interpreter of the `airflow` that is on the path.

    Raises:
        ConfigError: There is none, or it is not a script of a virtual environment.
    """
    script = shutil.which("airflow")
    if script is None:
        raise ConfigError(
            "no interpreter with Airflow is known: name one by --python, for example "
            "--python /srv/airflow/venv/bin/python"
        )
    beside = Path(script).resolve().with_name("python")
    if not beside.exists():
        raise ConfigError(f"{script} has no python beside it: name one by --python")
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
    return Interpreter(python, found.python, airflow)


def _install(python: str, what: str) -> str:
    wanted = "'apache-airflow>=3.2' msgspec" if what == "airflow" else what
    return f"{python} -m pip install {wanted}"


def _answer(python: str) -> _Answer:
    try:
        done = subprocess.run(
            [python, "-P", str(_START), _PROBE],
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
    """Return the environment of a process there: ours, without what is meant for our interpreter.

    Args:
        home: `AIRFLOW_HOME`, if it is not the environment's.
    """
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    kept["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    return kept if home is None else kept | {"AIRFLOW_HOME": home}
