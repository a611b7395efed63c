"""Hosts of bundles: the processes with Airflow, which a daemon starts and keeps running."""

import base64
import os
import re
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import structlog
from msgspec import Struct

from pubsubflow.airflow.outside.environments import environment_python
from pubsubflow.airflow.outside.interpreter import (
    Interpreter,
    environment,
    find_python,
    probe,
    start_command,
)
from pubsubflow.airflow.outside.place import kind_text
from pubsubflow.airflow.outside.settings import AirflowBundleSettings
from pubsubflow.airflow.protocol import HOSTS, BridgeSettings, encode
from pubsubflow.errors import ConfigError
from pubsubflow.exit_codes import describe_exit
from pubsubflow.runner.forked_process import ChildProcess
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.task_account import TaskAccount

log = structlog.get_logger(__name__)

_LAUNCH = "pubsubflow.airflow.outside.hosts:launch"
_HOST = "pubsubflow.airflow.inside.host:main"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")
_AGAIN_SECONDS = 2.0
_LOOK_SECONDS = 2.0


class HostLaunch(Struct, frozen=True):
    """The argument with which a host's process is forked, before it becomes Airflow's."""

    python: str
    env: dict[str, str]
    settings: BridgeSettings


class AirflowBundle(Struct, frozen=True):
    """A bundle whose interpreter was found fit."""

    name: str
    settings: AirflowBundleSettings
    interpreter: Interpreter

    @property
    def kind(self) -> str:
        """The kind of the bundle, for its manifest."""
        fingerprint = self.interpreter.fingerprint
        return kind_text(self.name, fingerprint, legacy=self.settings.legacy)


def find_bundles(
    configured: Mapping[str, AirflowBundleSettings], home: Path, account: TaskAccount | None
) -> list[AirflowBundle]:
    """Return the bundles of a configuration, each with what its interpreter has.

    Args:
        configured: Name → settings.
        home: The daemon's home, where environments are kept that are made of requirements.
        account: The account of the processes; None for the daemon's own.

    Raises:
        ConfigError: An interpreter is missing, or lacks something; the message says what.
    """
    # The home is root's alone: another account reaches nothing in it.
    kept = home if account is None else Path(account.shared)
    folder = kept / "airflow" / "environments"
    for name in configured:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"configuration: bundles.{name}: a name may hold letters, digits, '_' and '-' only"
            )
    return [_probed(name, each, folder, account) for name, each in configured.items()]


def _probed(
    name: str, settings: AirflowBundleSettings, folder: Path, account: TaskAccount | None
) -> AirflowBundle:
    option = "python" if settings.requirements is None else "requirements"
    try:
        python = _python(name, settings, folder)
        if account is not None:
            _check_readable(account, python)
        return AirflowBundle(name, settings, probe(python))
    except ConfigError as error:
        raise ConfigError(f"configuration: bundles.{name}.{option}: {error}") from error


def _check_readable(account: TaskAccount, python: str) -> None:
    """Check that the account of tasks can start an interpreter, which we can in any case."""
    # Links of a virtual environment lead elsewhere.
    refusal = account.refusal([python, os.path.realpath(python)])
    if refusal is not None:
        raise ConfigError(
            f"{refusal}: move it to where that account can read it, or set worker.run_as"
        )


def _python(name: str, settings: AirflowBundleSettings, folder: Path) -> str:
    file = settings.requirements
    if file is None:
        options = f"bundles.{name}.python, or a file of requirements by bundles.{name}.requirements"
        return str(settings.python or find_python(options))
    if settings.python is not None:
        raise ConfigError(f"bundles.{name}.python is given as well: one of them is enough")
    began: list[float] = []

    def on_make() -> None:
        began.append(time.monotonic())
        # A warning, as the daemon starts no earlier than it is there.
        log.warning(
            "airflow.installing",
            bundle=name,
            requirements=str(file),
            hint="an environment is made once for this file; it takes a minute or more",
        )

    python = environment_python(file, folder, on_make=on_make)
    if began:
        seconds = round(time.monotonic() - began[0], 1)
        log.warning("airflow.installed", bundle=name, seconds=seconds)
    return python


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

    A host is replaced when something is installed in its interpreter: the new one takes all that
    comes, the old one ends with its last attempt.

    Args:
        bundles: The bundles.
        fork_server: Forks the processes, which end with it.
        folder: Of their sockets.

    Attributes:
        kinds: Base of a bundle → its kind, for the loader; it changes with the interpreter.
        on_change: Called when a kind has changed.
    """

    def __init__(
        self,
        bundles: list[AirflowBundle],
        fork_server: ForkServer,
        folder: Path,
    ) -> None:
        self.kinds = {each.settings.base(each.name): each.kind for each in bundles}
        self.on_change: Callable[[], None] = lambda: None
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
                group.start_soon(self._follow, bundle, group)
            task_status.started()
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _follow(self, bundle: AirflowBundle, group: anyio.abc.TaskGroup) -> None:
        """Keep a host running, another one after each change of the interpreter."""
        while True:
            retired = anyio.Event()
            group.start_soon(self._keep, bundle, retired)
            bundle = await _changed(bundle)
            version = bundle.interpreter.airflow
            log.warning("airflow.interpreter_changed", bundle=bundle.name, version=version)
            retired.set()
            self.kinds[bundle.settings.base(bundle.name)] = bundle.kind
            self.on_change()

    async def _keep(self, bundle: AirflowBundle, retired: anyio.Event) -> None:
        """Keep a host running until it is retired; then wait for its last attempt."""
        version = bundle.interpreter.airflow
        while not retired.is_set():
            child = await self._fork_server.fork(_LAUNCH, encode(host_launch(bundle, self._folder)))
            log.info("airflow.host_started", bundle=bundle.name, version=version)
            async with child, anyio.create_task_group() as group:
                group.start_soon(_end_when, retired, child)
                code = await child.wait()
                group.cancel_scope.cancel()
            if not retired.is_set():
                log.warning("airflow.host_ended", bundle=bundle.name, how=describe_exit(code))
                await anyio.sleep(_AGAIN_SECONDS)


def host_launch(bundle: AirflowBundle, folder: Path) -> HostLaunch:
    """Return what the host of a bundle is started with.

    Args:
        bundle: The bundle.
        folder: Of the hosts' sockets.
    """
    settings = bundle.settings
    home = settings.airflow_home or folder / bundle.name
    env = {"AIRFLOW_HOME": str(home), **settings.env}
    address = str(folder / f"{bundle.name}.sock")
    bridge = BridgeSettings(
        address,
        0,
        settings.attempts,
        settings.files,
        settings.ahead,
        reuse=settings.isolation == "reuse",
    )
    return HostLaunch(bundle.interpreter.python, env, bridge)


def launch(_: socket.socket, argument: bytes) -> None:
    """Become the host of a bundle: the forked process is replaced by the other interpreter."""
    wanted = msgspec.msgpack.decode(argument, type=HostLaunch)
    command, env = host_start(wanted, os.getppid())
    os.execve(wanted.python, command, env)  # noqa: S606 - a list of arguments, without a shell


def host_start(wanted: HostLaunch, parent: int) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of a host's process.

    Args:
        wanted: What it is started with.
        parent: Pid of the process that starts it, with which it ends.
    """
    settings = msgspec.structs.replace(wanted.settings, parent=parent)
    encoded = base64.b64encode(encode(settings)).decode()
    env = environment() | wanted.env
    beside = str(Path(wanted.python).parent)
    env["PATH"] = os.pathsep.join((beside, env.get("PATH", os.defpath)))
    return start_command(wanted.python, _HOST, encoded), env


async def _end_when(retired: anyio.Event, child: ChildProcess) -> None:
    await retired.wait()
    child.interrupt(signal.SIGTERM)


async def _changed(bundle: AirflowBundle) -> AirflowBundle:
    """Wait until something is installed in an interpreter, and return the bundle with that."""
    seen = seen_fit = _stamps(bundle)
    while True:
        await anyio.sleep(_LOOK_SECONDS)
        now = _stamps(bundle)
        # An installation changes much, one after the other: it has ended when a look finds nothing.
        if now == seen and now != seen_fit:
            seen_fit = now
            try:
                found = await anyio.to_thread.run_sync(probe, bundle.interpreter.python)
            except ConfigError as error:
                log.warning("airflow.interpreter_unfit", bundle=bundle.name, error=str(error))
                continue
            if found.fingerprint != bundle.interpreter.fingerprint:
                return msgspec.structs.replace(bundle, interpreter=found)
        seen = now


def _stamps(bundle: AirflowBundle) -> list[int]:
    """Return when the folders of distributions have changed; 0 for one that is gone."""
    return [_stamp(folder) for folder in bundle.interpreter.folders]


def _stamp(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116 - one number, every two seconds
    except OSError:
        return 0


def elsewhere_of(bundles: list[AirflowBundle]) -> dict[str, Path]:
    """Return name → folder, of the bundles that may lie outside of the DAGs folder."""
    given = {each.name: Path(each.settings.path) for each in bundles}
    return {name: folder for name, folder in given.items() if folder.is_absolute()}
