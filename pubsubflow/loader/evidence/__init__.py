"""The evidence of an import: what beside the files of its bundle has decided what it made."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from msgspec import Struct

ALL = "*"
"""Stands for the whole environment among the names that an import has read."""
SALT_BYTES = 8
"""The length of the salt before the digest of an environment."""
MODULES = "/*.py"
"""At the end of a folder's path: its modules alone count."""


class Evidence(Struct, frozen=True, array_like=True):
    """What beside its bundle has decided what an import made.

    Attributes:
        names: The variables of the environment that it read; `ALL` alone for all of them.
        environment: A digest of their values; see `environment_digest`.
        outside: Path → signature of the files and folders outside of its bundle that it read.
        uncertain: What it used that may differ the next time, unseen.
    """

    names: tuple[str, ...] = ()
    environment: str = ""
    outside: dict[str, str] = {}
    uncertain: tuple[str, ...] = ()

    @classmethod
    def of_bundle(cls, uncertain: tuple[str, ...]) -> Self:
        """Return that of an import that its bundle has decided, but for what is uncertain."""
        return cls((), environment_digest((), {}, "0" * (2 * SALT_BYTES)), {}, uncertain)

    def holds(self, environment: Mapping[str, str], sign: Callable[[str], str]) -> bool:
        """Return whether all of it is as it was.

        Args:
            environment: That of imports.
            sign: Returns the signature of a path; see `signature`.
        """
        salt = self.environment[: 2 * SALT_BYTES]
        return self.environment == environment_digest(self.names, environment, salt) and all(
            sign(path) == found for path, found in self.outside.items()
        )


def environment_digest(names: Iterable[str], environment: Mapping[str, str], salt: str) -> str:
    """Return a salt with the digest of the values of variables: these may be secrets."""
    names = sorted(names)
    chosen = sorted(environment) if ALL in names else names
    digest = hashlib.blake2b(key=salt.encode(), digest_size=16)
    for name in chosen:
        value = environment.get(name)
        text = f"{name}\n" if value is None else f"{name}={value}\0"
        digest.update(text.encode(errors="surrogateescape"))
    return salt + digest.hexdigest()


def signature(path: str) -> str:
    """Return what changes with the content of a file, or the names in a folder."""
    if path.endswith(MODULES):
        names = "\n".join(module_names(path.removesuffix(MODULES)))
        return hashlib.blake2b(names.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    try:
        facts = os.stat(path)  # noqa: PTH116 - thousands of them
    except (OSError, ValueError):
        return ""
    return f"{facts.st_mtime_ns}.{facts.st_size}.{facts.st_ino}"


def module_names(folder: str) -> list[str]:
    """Return the modules and packages in a folder, sorted: a new one may be found before others."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - hundreds of names
    except OSError:
        return []
    packages = (name for name in names if "." not in name and name != "__pycache__")
    return sorted((*packages, *(name for name in names if name.endswith((".py", ".so")))))
