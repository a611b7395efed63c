"""Results of the suite: figures of one peer with one set of settings, as a JSON file."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
import psutil
from msgspec import Struct

Better = Literal["less", "more"]
_BUSY_SECONDS = 1


class Figure(Struct, frozen=True, omit_defaults=True):
    """A measured value.

    Attributes:
        name: What was measured, the same for all peers.
        value: The median, where there are several samples.
        unit: Of the value.
        better: Which direction is better.
        least, greatest, samples: Of the samples, where there are several.
        note: What limits the meaning of the value.
    """

    name: str
    value: float
    unit: str
    better: Better = "less"
    least: float | None = None
    greatest: float | None = None
    samples: int = 1
    note: str = ""


class Machine(Struct, frozen=True):
    """The machine that a result is from.

    Attributes:
        load: Average of the last minute, before the peer was started.
        busy_percent: Share of all cores that was in use then, by others.
    """

    system: str
    cores: int
    memory_gigabytes: float
    python: str
    load: float
    busy_percent: float


class Result(Struct, frozen=True):
    """Figures of a peer with some settings.

    Attributes:
        at: When it began, in UTC.
        peer, version: Of the peer.
        settings: Name of the settings.
        variables: What the settings set.
        postgres: Settings of the PostgreSQL that it used, as that says them; empty without one.
        counts: Name of the counts: how much was measured.
        failed: Workload → why it has no figures.
    """

    at: str
    peer: str
    version: str
    settings: str
    variables: dict[str, str]
    counts: str
    machine: Machine
    postgres: dict[str, str] = {}
    figures: list[Figure] = []
    failed: dict[str, str] = {}


def this_machine() -> Machine:
    """Describe this machine."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        cores=os.cpu_count() or 1,
        memory_gigabytes=round(psutil.virtual_memory().total / 2**30, 1),
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
        busy_percent=psutil.cpu_percent(_BUSY_SECONDS),
    )


def now() -> str:
    """Return this moment in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(result: Result, folder: Path) -> Path:
    """Write a result into a folder; an earlier version of the same one is replaced."""
    moment = result.at.replace(":", "")
    path = folder / f"{result.peer}-{result.settings}-{moment}.json"
    save(result, path)
    return path


def save(result: Result, path: Path) -> None:
    """Write a result's file, replacing an earlier one at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    draft.replace(path)


def read(path: Path) -> Result:
    """Read a result.

    Raises:
        ValidationError: The file is not one.
    """
    return msgspec.json.decode(path.read_bytes(), type=Result)
