"""Hosts of bundles: the processes with Airflow, which a daemon starts and keeps running."""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.abc
import msgspec
import structlog
from msgspec import Struct

import pubsubflow
from pubsubflow.airflow.outside.place import kind_text
from pubsubflow.airflow.outside.settings import AirflowBundleSettings
from pubsubflow.airflow.protocol import HOSTS, BridgeSettings, encode
from pubsubflow.errors import ConfigError
from pubsubflow.exit_codes import describe_exit
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.task_account import TaskAccount

log = structlog.get_logger(__name__)

_LAUNCH = "pubsubflow.airflow.outside.hosts:launch"
_START = Path(pubsubflow.__file__).parent / "airflow" / "inside" / "start.py"
_OLDEST = (3, 2)
_PROBE_SECONDS = 60.0
_AGAIN_SECONDS = 2.0
_OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class HostLaunch(Struct, frozen=True):
    """The argument with which a host's process is forked, before it becomes Airflow's."""

    python: str
    env: dict[str, str]
    settings: BridgeSettings


class AirflowBundle(Struct, frozen=True):
    """A bundle whose interpreter was found fit.

    Attributes:
        version: Of Airflow.
        fingerprint: Changes with what is installed there.
    """

    name: str
    settings: AirflowBundleSettings
    python: str
    version: str
    fingerprint: str

    @property
    def kind(self) -> str:
        """The kind of the bundle, for its manifest."""
        return kind_text(self.name, self.fingerprint, legacy=self.settings.legacy)


def find_bundles(configured: Mapping[str, AirflowBundleSettings]) -> list[AirflowBundle]:
    """Return the bundles of a configuration, each with what its interpreter has.

    Raises:
        ConfigError: An interpreter is missing, or lacks something; the message says what.
    """
    return [_probed(name, settings) for name, settings in configured.items()]


def _probed(name: str, settings: AirflowBundleSettings) -> AirflowBundle:
    python = str(settings.interpreter(name))
    probe = [python, "-P", str(_START), "pubsubflow.airflow.inside.probe:main"]
    try:
        done = subprocess.run(
            probe, capture_output=True, check=True, timeout=_PROBE_SECONDS, env=_environment({})
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", b"") or str(error).encode()
        last = detail.decode(errors="replace").strip().splitlines()[-1:]
        raise ConfigError(
            f"configuration: bundles.{name}.python: {python} cannot be used: {' '.join(last)}"
        ) from error
    versions = found["versions"]
    version = versions["apache-airflow-core"] or ""
    missing = [each for each, its in versions.items() if its is None]
    if missing:
        raise ConfigError(
            f"configuration: bundles.{name}.python: {python} lacks {', '.join(missing)}: "
            f"{python} -m pip install 'apache-airflow-core>=3.2' msgspec"
        )
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST:
        raise ConfigError(
            f"configuration: bundles.{name}.python: {python} has Airflow {version}, and 3.2 or "
            "newer is needed: make an environment with `pip install 'apache-airflow-core>=3.2' "
            "msgspec`; files written for Airflow 1.10 and 2 run there"
        )
    return AirflowBundle(name, settings, python, version, found["fingerprint"])


@contextmanager
def hosts_folder(account: TaskAccount | None) -> Iterator[Path]:
    """Make the folder of the hosts' sockets, which children find by their environment.

    Args:
        account: The account of the children; None for the daemon's own.
    """
    # Short, as the path of a socket has at most some hundred bytes, and homes may be deep.
    folder = Path(tempfile.mkdtemp(prefix="psf-"))
    if account is not None:
        os.chown(folder, account.uid, account.gid)
    os.environ[HOSTS] = str(folder)
    try:
        yield folder
    finally:
        os.environ.pop(HOSTS, None)
        shutil.rmtree(folder, ignore_errors=True)


class AirflowHosts:
    """The service that keeps a host running for each bundle.

    Args:
        bundles: The bundles.
        fork_server: Forks the processes, which end with it.
        folder: Of their sockets.
    """

    def __init__(
        self,
        bundles: list[AirflowBundle],
        fork_server: ForkServer,
        folder: Path,
    ) -> None:
        self._bundles = bundles
        self._fork_server = fork_server
        self._folder = folder

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep the hosts running until the daemon stops."""
        async with anyio.create_task_group() as group:
            for bundle in self._bundles:
                group.start_soon(self._keep, bundle)
            task_status.started()
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _keep(self, bundle: AirflowBundle) -> None:
        while True:
            target = encode(self._launch(bundle))
            child = await self._fork_server.fork(_LAUNCH, target)
            log.info("airflow.host_started", bundle=bundle.name, version=bundle.version)
            async with child:
                code = await child.wait()
            log.warning("airflow.host_ended", bundle=bundle.name, how=describe_exit(code))
            await anyio.sleep(_AGAIN_SECONDS)

    def _launch(self, bundle: AirflowBundle) -> HostLaunch:
        settings = bundle.settings
        home = settings.airflow_home or self._folder / bundle.name
        env = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", **settings.env}
        address = str(self._folder / f"{bundle.name}.sock")
        bridge = BridgeSettings(address, 0, settings.attempts, settings.files)
        return HostLaunch(bundle.python, env, bridge)


def launch(_: socket.socket, argument: bytes) -> None:
    """Become the host of a bundle: the forked process is replaced by the other interpreter."""
    wanted = msgspec.msgpack.decode(argument, type=HostLaunch)
    settings = msgspec.structs.replace(wanted.settings, parent=os.getppid())
    encoded = base64.b64encode(encode(settings)).decode()
    env = _environment(wanted.env)
    beside = str(Path(wanted.python).parent)
    env["PATH"] = os.pathsep.join((beside, env.get("PATH", os.defpath)))
    target = "pubsubflow.airflow.inside.host:main"
    command = [wanted.python, "-P", str(_START), target, encoded]
    os.execve(wanted.python, command, env)  # noqa: S606 - a list of arguments, without a shell


def _environment(further: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the other interpreter: without what points at this one."""
    mine = {name: text for name, text in os.environ.items() if name not in _OWN}
    return {**mine, **further}


def kinds_of(bundles: list[AirflowBundle]) -> dict[str, str]:
    """Return base → kind, for the loader."""
    return {bundle.settings.base: bundle.kind for bundle in bundles}
