"""Records the evidence of imports, in the processes that import DAG files."""

import os
import site
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any, ClassVar, Self

import pubsubflow
from pubsubflow.authoring.dag_files import BundleFolder
from pubsubflow.loader.evidence import (
    ALL,
    MODULES,
    SALT_BYTES,
    Evidence,
    environment_digest,
    module_names,
    signature,
)

_SETTLED_NS = 100_000_000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_LISTS = ("os.listdir", "os.scandir")
_IMPORT_SYSTEM = "<frozen importlib"
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
# Where `signature` lists folders, which is no evidence.
_LISTER = module_names.__code__.co_filename


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
        salt = os.urandom(SALT_BYTES).hex()
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
        if caller == _LISTER:
            return
        # The import system lists where it looks for modules.
        end = MODULES if caller.startswith(_IMPORT_SYSTEM) and isinstance(path, str) else ""
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
