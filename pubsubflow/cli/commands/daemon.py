"""Daemon commands: `up` with its own servers, `daemon` on those of the user, and addresses."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import anyio
from anyio import to_thread

from pubsubflow.cli import output
from pubsubflow.cli.commands.local.settings import check_no_airflow
from pubsubflow.cli.coroutines import complete
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.status_line import StatusLine
from pubsubflow.config import Config, load_config
from pubsubflow.config.sources import home_of, read_sources
from pubsubflow.daemon import run_daemon
from pubsubflow.embedded import find_running
from pubsubflow.errors import ConfigError, PubsubflowError, Unavailable
from pubsubflow.logging_setup import set_up_logging
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.roles import ROLES, check_roles
from pubsubflow.runner.parent_death import end_with_parent
from pubsubflow.runner.task_account import set_inspectable

if TYPE_CHECKING:
    from pubsubflow.model.api.resources import DagPage
    from pubsubflow.model.source.compiled import CompiledFolder

# What the start of a daemon does not use at once is imported while its processes get ready.
target = lazy_module("pubsubflow.cli.target")
comparing = lazy_module("pubsubflow.loader.compiled.comparing")

Level = Literal["debug", "info", "warning", "error"]
Form = Literal["console", "json"]
_FOLDER = Path("dags")
_VARIABLES = {
    "--nats-url": "PUBSUBFLOW__NATS__URL",
    "--postgres-url": "PUBSUBFLOW__POSTGRES__URL",
}
_VISIBLE = "every account of this machine can read the password in {}: set {} instead"


def up(
    dags: Path | None = None,
    /,
    *,
    host: str | None = None,
    port: int | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    airflow: Path | None = None,
    airflow_python: Path | None = None,
    airflow_requirements: Path | None = None,
    manifest: Path | None = None,
    home: Path | None = None,
    config: Path | None = None,
    log_level: Level | None = None,
    log_format: Form | None = None,
    ready_fd: int | None = None,
    parent: Annotated[int | None, Parameter(show=False)] = None,
) -> None:
    """Start everything in one daemon, with its own NATS and Postgres, until Ctrl-C.

    Args:
        dags: A folder of DAG files, or one file; ./dags if left out.
        host: Address to listen on; 127.0.0.1 if left out. Others than loopback need a token.
        port: TCP port to listen on, 0 for a free one; 8080 if left out.
        tls_cert: PEM file of the certificate with its chain; plain HTTP if left out.
        tls_key: PEM file of the certificate's key; the certificate's file if left out.
        airflow: A folder of Airflow's DAG files, which run in an interpreter that has Airflow.
        airflow_python: That interpreter; the one beside the command airflow if left out.
        airflow_requirements: In its place a file of requirements: an environment is made of it.
        manifest: What `pubsubflow compile` has written of the folder: no file is imported then.
        home: Home folder for all data; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        log_level: Least level that is logged to stderr; warning if left out.
        log_format: Format of the log.
        ready_fd: File descriptor to which the URL is written when the daemon is ready.
        parent: Process id of the parent, whose end stops the daemon; stdin is a pipe from it.
    """
    if parent is not None:
        # For the demo and other hosts: the daemon must not outlive a parent that is killed.
        end_with_parent(parent, sys.stdin.fileno(), signal.SIGTERM)
    flags = _flags(home, host, port, (tls_cert, tls_key), log_level, log_format)
    if airflow is not None:
        dags = _airflow_folder(dags, airflow)
        flags |= {
            "bundles.airflow.kind": "airflow",
            "bundles.airflow.python": airflow_python,
            "bundles.airflow.requirements": airflow_requirements,
        }
    settings = _settings(config, flags, quiet=True)
    folder = _folder(dags)
    greet = partial(_greet, settings.home) if ready_fd is None else partial(_notify, ready_fd)
    _run(
        settings,
        roles=ROLES,
        dags=folder,
        compiled=_compiled(manifest, folder, settings),
        embedded=True,
        greet=greet,
        shows_imports=ready_fd is None,
    )


def daemon(
    dags: Path | None = None,
    /,
    *,
    roles: str = ",".join(sorted(ROLES)),
    nats_url: str | None = None,
    postgres_url: str | None = None,
    manifest: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    home: Path | None = None,
    config: Path | None = None,
    log_level: Level | None = None,
    log_format: Form | None = None,
    ready_fd: int | None = None,
) -> None:
    """Start a daemon on your NATS and Postgres; several daemons share the work.

    Args:
        dags: A folder of DAG files, or one file, for the role scheduler.
        roles: Roles of this daemon, separated by commas.
        nats_url: URLs of your NATS servers, separated by commas.
        postgres_url: URL of your Postgres; not needed for the role worker alone.
        manifest: What `pubsubflow compile` has written of the folder: no file is imported then.
        host: Address to listen on; 127.0.0.1 if left out. Others than loopback need a token.
        port: TCP port to listen on, 0 for a free one; 8080 if left out.
        tls_cert: PEM file of the certificate with its chain; plain HTTP if left out.
        tls_key: PEM file of the certificate's key; the certificate's file if left out.
        home: Home folder of the daemon; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        log_level: Least level that is logged to stderr; info if left out.
        log_format: Format of the log.
        ready_fd: File descriptor to which the URL is written when the daemon is ready.
    """
    played = frozenset(filter(None, map(str.strip, roles.split(","))))
    check_roles(played)
    flags = _flags(home, host, port, (tls_cert, tls_key), log_level, log_format)
    flags |= {"nats.url": nats_url, "postgres.url": postgres_url}
    settings = _settings(config, flags, quiet=False)
    for name, url in (("--nats-url", nats_url), ("--postgres-url", postgres_url)):
        if url and any("@" in each and urlsplit(each).password for each in url.split(",")):
            output.warn(_VISIBLE.format(name, _VARIABLES[name]))
    if played - {"worker"} and not settings.postgres.url:
        raise ConfigError(
            "these roles need Postgres: name yours with --postgres-url, or start `pubsubflow up`, "
            "which starts its own"
        )
    greet = _ignore if ready_fd is None else partial(_notify, ready_fd)
    if manifest is not None and (dags is None or "scheduler" not in played):
        raise ConfigError(
            "--manifest stands for the DAG files of a daemon with the role scheduler: name their "
            "folder as well (`pubsubflow daemon DAGS --manifest FILE`), or leave it out"
        )
    compiled = _compiled(manifest, dags, settings)
    _run(settings, roles=played, dags=dags, compiled=compiled, embedded=False, greet=greet)


def print_nats_url(
    *, home: Path | None = None, config: Path | None = None, json: bool = False
) -> None:
    """Print the URL of a daemon's own NATS, with its token.

    Args:
        home: Home folder of the daemon; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Print JSON, with URL and token apart.
    """
    path = home_of(read_sources(file=config, environ=os.environ, flags={"home": home}))
    servers = find_running(path)
    if servers is None:
        raise Unavailable(
            f"no daemon with a NATS of its own runs on home {path}: start one with `pubsubflow "
            "up`, or name it by --home; a NATS of yours has the address in nats.url"
        )
    url, token = servers.nats.url, servers.nats.token
    scheme, _, place = url.partition("://")
    whole = f"{scheme}://{token}@{place}"
    output.show_result({"url": url, "token": token, "url_with_token": whole}, whole, json=json)


def _flags(
    home: Path | None,
    host: str | None,
    port: int | None,
    tls: tuple[Path | None, Path | None],
    log_level: Level | None,
    log_format: Form | None,
) -> dict[str, object]:
    return {
        "home": home,
        "api.host": host,
        "api.port": port,
        "api.tls_cert": tls[0],
        "api.tls_key": tls[1],
        "log.level": log_level,
        "log.format": log_format,
    }


def _settings(file: Path | None, flags: dict[str, object], *, quiet: bool) -> Config:
    settings = load_config(
        file=file,
        environ=os.environ,
        flags=flags,
        defaults={"log": {"level": "warning"}} if quiet else None,
    )
    set_up_logging(settings.log)
    return settings


def _airflow_folder(dags: Path | None, airflow: Path) -> Path:
    """Return the folder of Airflow's files, which is the DAGs folder then.

    Raises:
        ConfigError: Another folder of DAG files is named as well, or this is not one.
    """
    if dags is not None:
        raise ConfigError(
            "--airflow names the DAGs folder: for files of both kinds leave it out, link the "
            'folder into yours and add [bundles.NAME] kind = "airflow", path = "…" to '
            "pubsubflow.toml"
        )
    if not airflow.is_dir():
        raise ConfigError(f"--airflow {airflow}: it is not a folder")
    return airflow


def _folder(dags: Path | None) -> Path:
    if dags is not None:
        return dags
    if not _FOLDER.exists():
        raise ConfigError(
            "the folder ./dags does not exist: name yours (`pubsubflow up path/to/dags`), or run "
            "`pubsubflow demo` first"
        )
    return _FOLDER


def _compiled(
    manifest: Path | None, dags: Path | None, settings: Config
) -> "CompiledFolder | None":
    """Return the manifest of the DAGs folder, if one is named.

    Raises:
        ConfigError: It cannot be read, or is not of this folder and environment.
    """
    if manifest is None or dags is None:
        return None
    check_no_airflow(settings)
    compiled: CompiledFolder = comparing.read_manifest(manifest, dags, settings.loader)
    return compiled


def _run(
    settings: Config,
    *,
    roles: frozenset[str],
    dags: Path | None,
    compiled: "CompiledFolder | None",
    embedded: bool,
    greet: Callable[[str], Awaitable[None]],
    shows_imports: bool = False,
) -> None:
    """Run the daemon on uvloop, and call `greet` in a task beside it when it is ready."""
    # The daemon reports in callbacks that must not wait, hence the streams between them.
    announce, announced = anyio.create_memory_object_stream[str](1)
    imports = _Imports()

    async def greet_when_ready() -> None:
        async with announced:
            async for url in announced:
                await imports.end()
                await greet(url)

    async def do() -> None:
        async with anyio.create_task_group() as group, announce:
            group.start_soon(greet_when_ready)
            if shows_imports:
                group.start_soon(imports.follow)
            await run_daemon(
                settings,
                roles=roles,
                dags=dags,
                embedded=embedded,
                compiled=compiled,
                on_ready=announce.send_nowait,
                on_import=imports.report,
            )
            group.cancel_scope.cancel()

    # The environment, the memory and the files that are open here hold secrets.
    set_inspectable(allowed=False)
    anyio.run(do, backend_options={"use_uvloop": True})


class _Imports:
    """How many DAG files are imported, on a status line until the daemon is ready."""

    def __init__(self) -> None:
        self._line = StatusLine()
        self._done, self._total = 0, 0
        self._changed = anyio.Event()
        self._ready = False

    def report(self, done: int, total: int) -> None:
        """Take a report of the loader."""
        self._done, self._total = done, total
        self._changed.set()

    async def follow(self) -> None:
        """Show the reports until the end."""
        while self._line.shown and not self._ready:
            await self._changed.wait()
            self._changed = anyio.Event()
            if not self._ready:
                await _in_thread(self._line.show, "DAG files imported", self._done, self._total)

    async def end(self) -> None:
        """Remove the line."""
        self._ready = True
        await _in_thread(self._line.clear)


async def _in_thread(write: Callable[..., None], *arguments: object) -> None:
    # A terminal that is stopped or scrolled blocks the write, and with it the loop.
    await to_thread.run_sync(partial(write, *arguments), abandon_on_cancel=True)


async def _greet(home: Path, url: str) -> None:
    """Print the URL, the home folder, the DAGs and how to stop the daemon."""
    # In a thread: the first requests of others need not wait for the imports of a client.
    found = await to_thread.run_sync(_list_dags, home, abandon_on_cancel=True)
    await _in_thread(_print_greeting, home, url, found)


def _list_dags(home: Path) -> "DagPage | PubsubflowError":
    """Return the DAGs, or why they cannot be listed."""

    async def read() -> "DagPage":
        # Few attempts: a daemon that is stopped meanwhile waits for this thread.
        async with target.client_for_home(home, blocking=True, retries=1) as client:
            page: DagPage = await client.dags()
            return page

    try:
        return complete(read())
    except PubsubflowError as error:
        return error


def _print_greeting(home: Path, url: str, dags: "DagPage | PubsubflowError") -> None:
    output.show(f"pubsubflow is up at {url}")
    output.show(f"home {home}")
    output.show(f"page {url}/ui/ (`pubsubflow open` signs a browser in)")
    if isinstance(dags, PubsubflowError):
        output.warn(f"the DAGs cannot be listed: {dags}")
        return
    count = len(dags.items)
    output.show(f"{count or 'no'} DAG{'s' * (count != 1)} loaded" + " so far" * (not count))
    for broken in dags.import_errors:
        output.warn(f"{broken.file} cannot be imported: {broken.error}")
    output.show("Ctrl-C stops it")


async def _notify(descriptor: int, url: str) -> None:
    # The reader may have ended by now; the daemon goes on without it.
    with suppress(BrokenPipeError):
        os.write(descriptor, f"{url}\n".encode())
    os.close(descriptor)


async def _ignore(_: str) -> None:
    """Print nothing: the log says that the daemon is ready."""
