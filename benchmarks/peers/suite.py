"""Suite: installs a peer, runs the workloads on it, and keeps its result file up to date."""

import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from benchmarks.peers.counts import Counts
from benchmarks.peers.database import database, settings_of
from benchmarks.peers.environment import environment
from benchmarks.peers.peer import Peer, Site
from benchmarks.peers.results import Result, now, this_machine, write
from benchmarks.peers.workloads import WORKLOADS


def measure(
    kind: type[Peer],
    settings: str,
    workloads: Sequence[str],
    counts: Counts,
    *,
    cache: Path,
    results: Path,
) -> Result:
    """Measure a peer; a workload that fails is noted, and the others are measured all the same.

    Args:
        kind: The peer.
        settings: Name of its settings.
        workloads: Names of the workloads, in any order.
        counts: How much is measured.
        cache: Folder of environments.
        results: Folder of results; the file is complete after each workload.
    """
    variables = dict(kind.settings[settings])
    installed = kind.own_environment() or environment(kind.name, cache)
    result = Result(
        at=now(),
        peer=kind.name,
        version=installed.version,
        settings=settings,
        variables=variables,
        counts=counts.name,
        machine=this_machine(),
    )
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="psf-peer-")))
        folder.chmod(0o755)
        server = None
        if kind.needs_database(settings):
            place = folder / "database"
            place.mkdir()
            server = exits.enter_context(database(place))
        peer = kind(Site(installed, folder, server, variables))
        exits.callback(peer.close)
        exits.callback(peer.stop)
        try:
            peer.prepare()
            peer.start()  # compiles modules, and makes what a first start makes
            result = replace(result, postgres=settings_of(peer.postgres_dsn()))
        except Exception as error:  # noqa: BLE001 - the next peer is measured all the same
            return _failed(result, "install", error, results)
        chosen = [name for name in WORKLOADS if name in workloads]
        until = time.monotonic() + counts.peer_seconds
        for number, name in enumerate(chosen):
            print(f"{kind.name}, {settings}: {name} …", flush=True)
            result = _with(result, name, peer, counts)
            reason = _revive(peer) if name in result.failed else ""
            if time.monotonic() > until:
                reason = reason or f"not begun: {counts.peer_seconds:g} s were over"
            if reason:
                left = dict.fromkeys(chosen[number + 1 :], reason)
                result = replace(result, failed=result.failed | left)
            write(result, results)
            if reason:
                break
    return result


def _revive(peer: Peer) -> str:
    """Start a peer anew that may hang or be half dead; return why that failed, if it did."""
    try:
        peer.kill()
        peer.start()
    except (OSError, RuntimeError) as error:
        return f"not begun: it did not start again: {error}"
    return ""


def _with(result: Result, name: str, peer: Peer, counts: Counts) -> Result:
    try:
        figures = WORKLOADS[name](peer, counts)
    except Exception as error:  # noqa: BLE001 - the other workloads are measured all the same
        return _note(result, name, error)
    return replace(result, figures=[*result.figures, *figures])


def _note(result: Result, name: str, error: Exception) -> Result:
    traceback.print_exception(error)
    return replace(result, failed=result.failed | {name: f"{type(error).__name__}: {error}"})


def _failed(result: Result, name: str, error: Exception, results: Path) -> Result:
    found = _note(result, name, error)
    write(found, results)
    return found
