"""The place of a file: the bundle that it is in, where that is on this machine, and its host."""

import os
from pathlib import Path

from msgspec import Struct

from pubsubflow.airflow.protocol import HOSTS
from pubsubflow.errors import DefinitionError

KIND = "airflow"
_SEPARATOR = ":"


class BundlePlace(Struct, frozen=True):
    """A file of Airflow's in a bundle.

    Attributes:
        bundle: Name of the bundle in the configuration.
        folder: The folder of the bundle on disk.
        root: The folder that users know it by.
        file: The DAG file, relative to it.
        variables: The variables that its import may use: name → its value, in a tuple.
    """

    bundle: str
    legacy: bool
    folder: str
    root: str
    file: str
    variables: dict[str, tuple[object, ...]] = {}

    @property
    def address(self) -> str:
        """The socket of the bundle's host."""
        return host_address(self.bundle)


def kind_text(bundle: str, fingerprint: str, *, legacy: bool) -> str:
    """Return what a bundle's manifest says of its kind."""
    return _SEPARATOR.join((KIND, bundle, "legacy" if legacy else "plain", fingerprint))


def place_of(kind: str, folder: str, root: str, file: str) -> BundlePlace:
    """Return the place of a file, from what its bundle's manifest says."""
    _, bundle, legacy, _ = kind.split(_SEPARATOR, 3)
    return BundlePlace(bundle, legacy == "legacy", folder, root, file)


def host_address(bundle: str) -> str:
    """Return the path of the socket of a bundle's host.

    Raises:
        DefinitionError: This process is not of a daemon that has hosts.
    """
    folder = os.environ.get(HOSTS)
    if not folder:
        raise DefinitionError(
            f"this daemon has no interpreter with Airflow for bundle {bundle!r}: add "
            f"[bundles.{bundle}] to its configuration"
        )
    return str(Path(folder, f"{bundle}.sock"))
