"""The NATS server of a home: its configuration, start and stop."""

import errno
import os
import secrets
import shutil
import signal
import socket

import anyio
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from pubsubflow.embedded.binaries import find_nats
from pubsubflow.embedded.child import Child
from pubsubflow.embedded.home import Home, translate_errors, write_private
from pubsubflow.embedded.server_log import FULL_DISK, ServerLog
from pubsubflow.errors import ConfigError

_HOST = "127.0.0.1"
# Below the ephemeral ports of Linux and macOS, which outgoing connections may occupy.
_PORTS = range(20_000, 32_000)
_TRIES = 50
_MEBI = 1 << 20
_MAX_STORE_BYTES = 64 << 30
# Above what the streams reserve; their real bound is the disk, which is checked at each start.
_MIN_STORE_BYTES = 1024 * _MEBI
_LEAST_FREE_BYTES = 16 * _MEBI
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.003
_GREETING_SECONDS = 1.0
_STOP_SECONDS = 5.0
# A Go program hands work from thread to thread, which costs more than the work of a message. One
# daemon cannot keep one of them busy; what waits for the disk does not count.
_ENVIRONMENT = {"GOMAXPROCS": "1"}
_NOT_READY_ERRORS = (
    TimeoutError,
    anyio.IncompleteRead,
    anyio.DelimiterNotFound,
    anyio.BrokenResourceError,
    msgspec.DecodeError,
)


class NatsAddress(msgspec.Struct, frozen=True):
    """The address of NATS, with the token."""

    url: str
    token: str


class _Info(msgspec.Struct):
    server_name: str = ""
    jetstream: bool = False


class NatsServer:
    """NATS with JetStream, on loopback, on the same port at each start if possible.

    Args:
        home: The home, held.
        token: Token of the clients.
        port: Port that the user requires, if any.

    Attributes:
        launched: Set once its process has been started for the first time.
    """

    name = "nats"

    def __init__(self, home: Home, token: str, port: int | None) -> None:
        self._home = home
        self._token = token
        self._port = port
        self._log = ServerLog(home.log / "nats.log")
        self._child: Child | None = None
        self._name = ""
        self._disk_was_full = False
        self.launched = anyio.Event()

    @property
    def address(self) -> NatsAddress:
        """The address at which it listens."""
        return NatsAddress(url=f"nats://{_HOST}:{self._port}", token=self._token)

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Start the server and wait until it accepts connections.

        Raises:
            ConfigError: The port is taken, the disk is full, or it exits at once.
        """
        with translate_errors(self._home.path):
            port = self._port or self._choose_port()
            if not _is_free(port):
                raise _port_taken(port)
            name = self._name = f"pubsubflow-{secrets.token_hex(4)}"
            self._disk_was_full = False
            child = self._child = self._spawn(name, port)
            self.launched.set()
            await self._wait_ready(child, name, port)
            if port != self.last_port(self._home):
                write_private(self._home.path / "nats.port", f"{port}\n".encode())
            self._port = port

    async def wait(self) -> int:
        """Wait until it has exited; return its exit code."""
        if self._child is None:
            return 0
        code = await self._child.wait()
        self._child = None
        return code

    async def answers(self) -> bool:
        """Return whether it greets a new connection."""
        return self._port is not None and await _is_ready(self._name, self._port)

    def fault(self) -> str | None:
        """Return why it cannot work until it is started again; None if it can.

        A stream whose file could not be written refuses every message from then on.
        """
        if self._log.contains_new(FULL_DISK):
            self._disk_was_full = True
        if self._disk_was_full and self.has_space:
            return "the disk was full, and it cannot store since"
        return None

    @property
    def has_space(self) -> bool:
        """Whether the disk has space for it to start and to work."""
        return shutil.disk_usage(self._home.nats).free >= _LEAST_FREE_BYTES

    async def end(self, *, hangs: bool) -> None:
        """End the process, by force if it hangs; who waits for its exit starts it again."""
        child = self._child
        if child is not None and hangs:
            child.send(signal.SIGKILL)
        elif child is not None:
            await child.stop((signal.SIGTERM, _STOP_SECONDS))

    async def stop(self) -> None:
        """Stop the server, if it runs."""
        if self._child:
            await self._child.stop((signal.SIGTERM, _STOP_SECONDS))
            self._child = None

    def maintain(self) -> None:
        """Rotate the log."""
        self._log.rotate()

    def _choose_port(self) -> int:
        """Return the last port of this home if it is free, else a free one."""
        known = self.last_port(self._home)
        if known and _is_free(known):
            return known
        for _ in range(_TRIES):
            port = secrets.choice(_PORTS)
            if _is_free(port):
                return port
        raise ConfigError("no free port for NATS was found: name one with --nats-port")

    @staticmethod
    def last_port(home: Home) -> int | None:
        """Return the last port of NATS on a home, which it has while it runs."""
        record = home.path / "nats.port"
        text = record.read_text().strip() if record.exists() else ""
        return int(text) if text.isdecimal() else None

    def _spawn(self, name: str, port: int) -> Child:
        config = self._home.nats / "nats.conf"
        text = msgspec.json.format(msgspec.json.encode(self._config(name, port)))
        write_private(config, text, durable=False)
        output = self._log.open()
        try:
            return Child.spawn(
                [find_nats(), "-c", config],
                cwd=self._home.nats,
                output=output,
                death_signal=signal.SIGTERM,
                inherit=[self._home.servers_lock],
                environ=_ENVIRONMENT,
            )
        finally:
            os.close(output)

    def _config(self, name: str, port: int) -> dict[str, object]:
        """Return the server's configuration; JSON is a subset of its format."""
        store = self._home.nats / "jetstream"
        mine = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
        # JetStream's default is a part of the space that is free at the start: a store that grows
        # would lower its own limit at each restart. So its present size is added.
        space = (mine + shutil.disk_usage(self._home.nats).free) // 2
        return {
            "listen": f"{_HOST}:{port}",
            "server_name": name,
            "authorization": {"token": self._token},
            "max_payload": 8 * _MEBI,
            "jetstream": {
                "store_dir": str(self._home.nats),  # makes a folder "jetstream" in it
                "max_memory_store": 64 * _MEBI,
                "max_file_store": min(max(space, _MIN_STORE_BYTES), _MAX_STORE_BYTES),
                "limits": {"default_max_consumers": -1},  # the default is 1,000 per stream
            },
        }

    async def _wait_ready(self, child: Child, name: str, port: int) -> None:
        try:
            with anyio.fail_after(_READY_SECONDS):
                await self._poll_ready(child, name, port)
        except TimeoutError:
            await self.stop()
            raise ConfigError(
                f"NATS was not ready in {_READY_SECONDS:g} s: see {self._log.path}"
            ) from None

    async def _poll_ready(self, child: Child, name: str, port: int) -> None:
        """Wait for the INFO of the server, which listens once JetStream has recovered."""
        while not await _is_ready(name, port):
            if child.exited:
                code = await self.wait()
                taken = self._log.contains("address already in use")
                raise _port_taken(port) if taken else self._log.start_error("NATS", code)
            await anyio.sleep(_POLL_SECONDS)


async def _is_ready(name: str, port: int) -> bool:
    """Return whether the server of this name, and not another, listens at the port."""
    try:
        stream = await anyio.connect_tcp(_HOST, port)
    except OSError:
        return False
    async with stream:
        try:
            with anyio.fail_after(_GREETING_SECONDS):
                line = await BufferedByteReceiveStream(stream).receive_until(b"\r\n", _MEBI)
            info = msgspec.json.decode(line.removeprefix(b"INFO "), type=_Info)
        except _NOT_READY_ERRORS:
            return False
    return info.server_name == name and info.jetstream


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise ConfigError(f"port {port} cannot be used: {error.strerror}") from error
    return True


def _port_taken(port: int) -> ConfigError:
    return ConfigError(
        f"port {port} of {_HOST} is taken: free it, or name another with --nats-port"
    )
