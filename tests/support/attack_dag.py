"""A DAG whose task tries all that docs/security.md says a task can or cannot do."""

import ctypes
import gc
import json
import os
import socket
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import anyio

from pubsubflow import Context, dag, task
from pubsubflow.errors import ConfigError
from pubsubflow.model.wire.worker_requests import ConnectionRequest
from pubsubflow.runner.exchanges.task_host import RunnerHost

_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17


def read(path):
    with Path(path).open("rb") as file:
        return file.read(100) or b"empty"


def listed(path):
    return [each.name for each in Path(path).iterdir()]


def memory(pid):
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    start = int(next(line for line in maps if " rw-p " in line).split("-")[0], 16)
    with Path(f"/proc/{pid}/mem").open("rb") as file:
        file.seek(start)
        return file.read(8)


def trace(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(_PTRACE_ATTACH, pid, None, None):
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0)
    libc.ptrace(_PTRACE_DETACH, pid, None, None)


def postgres(home):
    with socket.socket(socket.AF_UNIX) as sock:
        os.chdir(f"{home}/postgres/data")
        sock.connect(".s.PGSQL.5432")
        words = b"user\0pubsubflow\0database\0pubsubflow\0\0"
        sock.sendall((8 + len(words)).to_bytes(4) + (196608).to_bytes(4) + words)
        reply = sock.recv(9)
    if reply[:1] != b"R" or int.from_bytes(reply[5:9]) != 0:  # 0: no password is asked for
        raise PermissionError("a password is asked for")


def nats(port):
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.recv(4096)
        sock.sendall(b'CONNECT {"verbose":false}\r\nPUB psf.in.event.0 2\r\n{}\r\nPING\r\n')
        reply = sock.recv(4096)
    if b"PONG" not in reply:
        raise PermissionError(reply.decode())


def api(url):
    try:
        urllib.request.urlopen(f"{url}/api/v1/dags").read()
    except urllib.error.HTTPError as error:
        raise PermissionError(error.code) from error


def environments(secrets):
    """Look for secrets in the arguments and environments of all processes."""
    for pid in filter(str.isdecimal, listed("/proc")):
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                found = Path("/proc", pid, name).read_text(errors="replace")
                if any(secret in found for secret in secrets):
                    return f"{pid}/{name}"
    raise PermissionError("no process shows one")


def inherited():
    """Return what is open here and is not this process's own: files, or sockets of others."""
    targets = {}
    for fd in listed("/proc/self/fd"):
        with suppress(OSError):
            targets[fd] = str(Path(f"/proc/self/fd/{fd}").readlink())
    odd = {fd: to for fd, to in targets.items() if to.startswith("/") and to != "/dev/null"}
    odd = {fd: to for fd, to in odd.items() if not to.startswith("/proc/")}
    sockets = [to for to in targets.values() if to.startswith("socket:")]
    if odd or len(sockets) > 1:
        return odd or sockets
    raise PermissionError("nothing but its own")


def write_bundle():
    folder = Path(__file__).parent
    folder.chmod(0o755)
    with (folder / "planted.py").open("w"):
        pass
    (folder / "planted.py").unlink()


def siblings():
    parent = os.getppid()
    text = "".join(each.read_text() for each in Path(f"/proc/{parent}/task").glob("*/children"))
    return [int(pid) for pid in text.split() if int(pid) != os.getpid()]


def connection(ctx, name):
    return ctx.connection(name).password


def forged_fence(out):
    """Request a connection in the name of a task for whose DAG it is, past all our own code."""
    while not Path(f"{out}.keeping").exists():
        time.sleep(0.05)
    host = next(each for each in gc.get_objects() if isinstance(each, RunnerHost))
    mine = host._execution.message.run
    for run in range(mine - 20, mine):
        reply = host._request(ConnectionRequest(run, 0, -1, 1, 1, "sealed"))
        if reply.data:
            return reply.data
    raise PermissionError(reply.error)


def attacks(ctx, at):
    home, pid = at["home"], at["pid"]
    return {
        "read the key file of connections": lambda: read(f"{home}/keys"),
        "read the passwords of the embedded servers": lambda: read(f"{home}/secrets"),
        "read the owner's token": lambda: read(f"{home}/owner"),
        "read the daemon's configuration file (0600)": lambda: read(at["config"]),
        "read files of Postgres and NATS": lambda: listed(f"{home}/nats"),
        "read the servers' logs": lambda: listed(f"{home}/log"),
        "read the daemon's environment": lambda: read(f"/proc/{pid}/environ"),
        "list the daemon's open files": lambda: listed(f"/proc/{pid}/fd"),
        "read the daemon's memory": lambda: memory(pid),
        "trace the daemon (ptrace)": lambda: trace(pid),
        "trace the process that forks all tasks": lambda: trace(os.getppid()),
        "read the memory of the embedded NATS": lambda: memory(at["nats_pid"]),
        "find a secret in the arguments or environment of any process": lambda: environments(
            at["secrets"]
        ),
        "use files or sockets that it inherited": inherited,
        "connect to Postgres without a password": lambda: postgres(home),
        "publish to NATS without the token": lambda: nats(at["nats_port"]),
        "call the API without a token, once one was made": lambda: api(at["url"]),
        "end the daemon (kill -9)": lambda: os.kill(pid, 0),
        "write into a bundle's copy, its own or another's": write_bundle,
        "read the memory of another DAG's task": lambda: memory(siblings()[0]),
        "end another DAG's task": lambda: os.kill(siblings()[0], 0),
        "get a connection that another DAG uses, without `dags=`": lambda: connection(ctx, "other"),
        "get a connection whose `dags=` leave its DAG out": lambda: connection(ctx, "sealed"),
        "get it by the protocol itself, in the name of a task of a DAG in `dags=`": lambda: (
            forged_fence(at["out"])
        ),
        "become root by a setuid program": setuid,
    }


def setuid():
    status = Path("/proc/self/status").read_text()
    if "NoNewPrivs:\t1" in status:
        raise PermissionError("no new privileges")


@dag(params={"at": ""})
def attacker():
    @task
    def attack(ctx: Context):
        at = json.loads(ctx.run.params["at"])
        found = {}
        for name, try_it in attacks(ctx, at).items():
            try:
                found[name] = f"works: {try_it()!r:.80}"
            except (OSError, RuntimeError, ConfigError) as error:
                found[name] = f"refused: {error}"
        status = Path("/proc/self/status").read_text().splitlines()
        found["status"] = {
            line.split(":")[0]: line.split(":")[1].split()
            for line in status
            if line.startswith(("Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs"))
        }
        found["mine"] = {name: os.environ.get(name) for name in ("HOME", "USER")}
        Path(at["out"]).write_text(json.dumps(found))

    attack()


@dag(params={"at": ""})
def asynchronous():
    @task
    async def look(ctx: Context):
        at = json.loads(ctx.run.params["at"])
        await anyio.Path(f"{at['out']}.uid").write_text(str(os.getuid()))

    look()


@dag(params={"at": ""})
def keeper():
    @task
    async def keep(ctx: Context):
        """Hold a lease, with the right to the sealed connection, until the attacks are over."""
        at = json.loads(ctx.run.params["at"])
        assert ctx.connection("sealed").password == "p"
        await anyio.Path(f"{at['out']}.keeping").touch()
        for _ in range(1200):
            if await anyio.Path(at["out"]).exists():
                return
            await anyio.sleep(0.05)
        raise TimeoutError("no attack has ended")

    keep()
