"""A container to create: what it runs and what it may use, as the Docker engine reads it."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from pubsubflow.errors import InvalidInput

_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30}


class Container(Struct, frozen=True, kw_only=True):
    """A container to create.

    Attributes:
        command: In place of the image's: a list, or a string that the image's shell reads.
        entrypoint: In place of the image's.
        mounts: Bind mounts, `/host/path:/container/path[:ro]`.
        memory_bytes: How much memory it may use.
        cpus: How many processors it may use.
    """

    image: str
    command: str | Sequence[str] | None = None
    entrypoint: Sequence[str] | None = None
    environment: Mapping[str, str] = {}
    working_dir: str | None = None
    user: str | None = None
    labels: Mapping[str, str] = {}
    mounts: Sequence[str] = ()
    network: str | None = None
    memory_bytes: int | None = None
    cpus: float | None = None

    def document(self) -> dict[str, Any]:
        """Return what the engine's API takes; what is not given is left to the image."""
        command = self.command
        host: dict[str, Any] = {
            "Binds": list(self.mounts),
            "NetworkMode": self.network,
            "Memory": self.memory_bytes,
            "NanoCpus": None if self.cpus is None else int(self.cpus * 1e9),
        }
        found: dict[str, Any] = {
            "Image": self.image,
            "Cmd": ["/bin/sh", "-c", command] if isinstance(command, str) else command,
            "Entrypoint": self.entrypoint,
            "Env": [f"{name}={text}" for name, text in self.environment.items()],
            "WorkingDir": self.working_dir,
            "User": self.user,
            "Labels": dict(self.labels),
            "HostConfig": {name: value for name, value in host.items() if value},
        }
        return {name: value for name, value in found.items() if value is not None}


def parse_bytes(given: str | int) -> int:
    """Return a size in bytes, of which the last letter may be a unit.

    Raises:
        InvalidInput: It is not a size.
    """
    if isinstance(given, int):
        return given
    number, unit = given[:-1], given[-1:].lower()
    if unit.isdecimal():
        number, unit = given, "b"
    if unit not in _UNITS or not number.isdecimal():
        raise InvalidInput("write a number with b, k, m or g, such as 512m")
    return int(number) << _UNITS[unit]
