"""The evidence of an import: what beside the files of its bundle has decided what it made."""

import hashlib
import os
import site
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any, ClassVar, Self

from msgspec import Struct

import pubsubflow
from pubsubflow.authoring.dag_files import BundleFolder

ALL = "*"
"""Stands for the whole environment among the names that an import has read."""
_SALT_BYTES = 8
_SETTLED_NS = 100_000_000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_LISTS = ("os.listdir", "os.scandir")
_IMPORT_SYSTEM = "<frozen importlib"
_MODULES = "/*.py"
"""At the end of a folder's path: its modules alone count."""
_SYSTEM_FILES = ("/proc/", "/sys/", "/dev/")
_UNCERTAIN_EVENTS = (
    *("socket.", "subprocess.", "os.system", "os.posix_spawn", "os.spawn", "os.exec", "os.fork"),
    *("pty.", "sqlite3.connect", "urllib.", "http.client.", "ftplib.", "smtplib.", "imaplib."),
    *("poplib.", "nntplib.", "telnetlib.", "os.getxattr", "os.listxattr"),
)
# No audit event tells of these: they are looked for by name in the code that an import executes.
_UNCERTAIN_NAMES = frozenset(
    {
        *("time", "time_ns", "monotonic", "perf_counter", "now", "utcnow", "today", "ctime"),
        *("localtime", "gmtime", "days_ago"),
        *("random", "secrets", "urandom", "getrandom", "uuid1", "uuid4", "SystemRandom"),
        *("exists", "lexists", "is_file", "is_dir", "isfile", "isdir", "stat", "lstat", "access"),
        *("getmtime", "getsize", "getctime", "is_symlink", "islink", "readlink"),
        *("getpid", "getcwd", "cwd", "getuid", "geteuid", "getlogin", "getuser", "uname", "node"),
        *("cpu_count", "getloadavg", "sched_getaffinity", "platform", "expanduser", "home"),
    }
)


def _places() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the folders of Python and of this package, and those of installed distributions."""
    paths = sysconfig.get_paths()
    installed = {paths["purelib"], paths["platlib"], *site.getsitepackages()}
    installed.add(site.getusersitepackages())
    ours = {paths["stdlib"], paths["platstdlib"], str(Path(pubsubflow.__file__).parent)}
    return (
        (*(f"{each}{os.sep}" for each in sorted(ours)), "<frozen "),
        tuple(f"{each}{os.sep}" for each in sorted(installed)),
    )


# Of this process's interpreter, so once for all that are forked.
_OURS, _INSTALLED = _places()


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

    def holds(self, environment: Mapping[str, str], sign: Callable[[str], str]) -> bool:
        """Return whether all of it is as it was.

        Args:
            environment: That of imports.
            sign: Returns the signature of a path; see `signature`.
        """
        salt = self.environment[: 2 * _SALT_BYTES]
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
    if path.endswith(_MODULES):
        names = "\n".join(module_names(path.removesuffix(_MODULES)))
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


class EvidenceRecorder:
    """Records the evidence of imports, by an audit hook and in `os.environ`.

    What one import has read counts for all later ones of the process, too: a library keeps what it
    has read when it was imported.

    Args:
        folder: The bundle's.
    """

    def __init__(self, folder: BundleFolder) -> None:
        self._folder = folder
        self._environment = dict(os.environ)
        self._outside: dict[str, str] = {}
        self._uncertain: set[str] = set()
        self._keeps = False
        self._known: dict[str, bool] = {}

    @classmethod
    def start(cls, folder: BundleFolder) -> Self:
        """Record from now on, for the life of the process: a hook cannot be removed."""
        recorder = cls(folder)
        _RecordedEnviron.record()
        sys.addaudithook(recorder.observe)
        return recorder

    def forget(self) -> None:
        """Go on to another import."""
        if not self._keeps:
            self._uncertain.clear()

    def evidence(self) -> Evidence:
        """Return the evidence so far."""
        names = tuple(sorted(_RecordedEnviron.read))
        names = (ALL,) if ALL in names else names
        salt = os.urandom(_SALT_BYTES).hex()
        digest = environment_digest(names, self._environment, salt)
        return Evidence(names, digest, dict(self._outside), tuple(sorted(self._uncertain)))

    def observe(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an audit event."""
        if event == "exec":
            self._on_code(arguments[0])
        elif event == "open":
            self._on_open(arguments[0], arguments[2])
        elif event in _LISTS:
            self._on_listing("." if arguments[0] is None else arguments[0])
        elif event == "import":
            if isinstance(arguments[1], str):
                self._on_path(arguments[1])
        elif self._is_uncertain(event):
            self._uncertain.add(event)

    def _is_uncertain(self, event: str) -> bool:
        found = self._known.get(event)
        if found is None:
            found = self._known[event] = event.startswith(_UNCERTAIN_EVENTS)
        return found

    def _on_code(self, code: object) -> None:
        """Take code that is about to be executed: a module, most often."""
        if not isinstance(code, CodeType):
            return
        path = code.co_filename
        if self._folder.inside(path) is None:
            # Folders of distributions may lie below those of Python.
            installed = path.startswith(_INSTALLED)
            if not installed and path.startswith(_OURS):
                return
            self._keeps = True
            if installed:
                return
            if path.startswith(os.sep):
                self._on_path(path)
        self._uncertain.update(_UNCERTAIN_NAMES.intersection(_names(code)))

    def _on_open(self, path: object, flags: object) -> None:
        if isinstance(flags, int) and flags & _WRITES and path != os.devnull:
            self._uncertain.add("writes files")
        else:
            self._on_path(path)

    def _on_listing(self, path: object) -> None:
        # Ours, the caller's, and what calls it, as far as that is Python.
        caller = sys._getframe(2).f_code.co_filename  # noqa: SLF001 - there is no other way
        if caller == __file__:
            return
        # The import system lists where it looks for modules.
        end = _MODULES if caller.startswith(_IMPORT_SYSTEM) and isinstance(path, str) else ""
        self._on_path(f"{path}{end}" if end else path)

    def _on_path(self, path: object) -> None:
        """Take a file that is about to be read, or a folder that is about to be listed."""
        if isinstance(path, os.PathLike):
            path = os.fspath(path)
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str) or path == os.devnull:
            return
        path = os.path.abspath(path)  # noqa: PTH100 - without following links
        if path.endswith(".pyc") or path.startswith((*_OURS, *_INSTALLED)):
            return
        if path in self._outside or self._folder.inside(path) is not None:
            return
        if path.startswith(_SYSTEM_FILES):
            self._uncertain.add("reads files of the system")
            return
        self._outside[path] = found = signature(path)
        if "." in found and time.time_ns() - int(found.partition(".")[0]) < _SETTLED_NS:
            self._uncertain.add("reads a file that was written just before")


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code uses, and the code in it."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)


class _RecordedEnviron(os._Environ[Any]):  # noqa: SLF001 - it is what `os.environ` is
    """The environment of this process, with the names that were read of it."""

    read: ClassVar[set[str]] = set()

    @classmethod
    def record(cls) -> None:
        """Record what is read from now on; who holds `os.environ` already reads the same."""
        os.environ.__class__ = cls
        os.environb.__class__ = cls

    def __getitem__(self, key: Any) -> Any:
        self.read.add(os.fsdecode(key) if isinstance(key, str | bytes) else ALL)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        self.read.add(ALL)
        return super().__iter__()

    def __repr__(self) -> str:
        self.read.add(ALL)
        return super().__repr__()
