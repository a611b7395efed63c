"""The clean slate: whether a process is as it was before an import, so that it may import another.

What an import has loaded of its bundle is forgotten. Whatever else it may leave behind that another
one could notice ends the process, and the next file has a new one: it must not depend on its
neighbours.
"""

import builtins
import locale
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import chain, islice
from operator import is_
from types import ModuleType
from typing import Any

from pubsubflow.authoring.dag_files import BundleFolder
from pubsubflow.model.lazy_import import attributes_so_far

# What DAG files are written with, and what decides what they define.
_WATCHED = frozenset(
    {
        *("pubsubflow", "pubsubflow.notify", "pubsubflow.timetables"),
        *("builtins", "datetime", "functools", "json", "os", "pathlib", "random", "time", "uuid"),
    }
)
_WATCHED_BELOW = ("pubsubflow.authoring.", "pubsubflow.operators.", "pubsubflow_")
# SIGALRM has a handler of each import's own; see `child`.
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGALRM})
# The function of `signal` makes an enum of what this one returns, sixty times for each file.
_getsignal = import_module("_signal").getsignal
_IMMUTABLE_TYPE = 1 << 8
"""Py_TPFLAGS_IMMUTABLETYPE: no attribute of such a class can be set or deleted."""


class CleanSlate:
    """A process before its first import.

    Args:
        folder: The bundle whose files it imports.
    """

    def __init__(self, folder: BundleFolder) -> None:
        self._folder = folder
        self._modules = frozenset(sys.modules)
        self._facts = _facts()
        namespaces = [
            each
            for name in self._modules
            if name in _WATCHED or name.startswith(_WATCHED_BELOW)
            for each in _namespaces(sys.modules[name])
        ]
        # With the modules themselves: another one may stand under the name of one.
        self._watched = _Watched([sys.modules, *namespaces])

    def wipe(self) -> bool:
        """Forget what an import has loaded; return whether nothing else of it is left."""
        for name in sys.modules.keys() - self._modules:
            module = sys.modules[name]
            if not _is_placed(module):
                return False  # made by a program, which another import may find
            place = self._place(module)
            if place is None:
                continue
            if place.endswith(tuple(EXTENSION_SUFFIXES)):
                return False  # it is never unloaded
            del sys.modules[name]
        whole = self._modules <= sys.modules.keys()
        return whole and self._facts == _facts() and self._watched.are_kept()

    def _place(self, module: ModuleType | None) -> str | None:
        """Return where in the bundle a module lies; None if it lies elsewhere."""
        known = attributes_so_far(module)
        file = known.get("__file__")
        places = [file] if isinstance(file, str) else list(known.get("__path__", ()))
        inside = [self._folder.inside(each) for each in places if isinstance(each, str)]
        return next((each for each in inside if each is not None), None)


def _is_placed(module: ModuleType | None) -> bool:
    """Return whether a module was found by the import system, rather than made by a program."""
    return attributes_so_far(module).get("__spec__") is not None


def _namespaces(module: ModuleType) -> list[Mapping[str, Any]]:
    """Return the attributes of a module and of the classes that it defines and that may change."""
    own = attributes_so_far(module)
    # Not isinstance(): it would have modules loaded that are imported lazily.
    classes = [each for each in own.values() if issubclass(type(each), type)]
    return [
        own,
        *(
            vars(each)
            for each in classes
            if each.__module__ == module.__name__ and not each.__flags__ & _IMMUTABLE_TYPE
        ),
    ]


class _Watched:
    """Namespaces, with the names and values that they had.

    Args:
        namespaces: Several hundred: they are compared after each import, most often as one.
    """

    def __init__(self, namespaces: Iterable[Mapping[str, Any]]) -> None:
        self._namespaces = tuple(namespaces)
        self._note()

    def are_kept(self) -> bool:
        """Return whether each has what it had; it may have got more, as lazy names."""
        # Names keep their order, and new ones come last.
        if [*chain.from_iterable(self._namespaces)] == self._names:
            # By identity: what is put in the place of something else may say that it equals it.
            return all(map(is_, self._all_values(), self._values))
        names, values = iter(self._names), iter(self._values)
        for namespace, size in zip(self._namespaces, self._sizes, strict=True):
            of_names, of_values = islice(names, size), islice(values, size)
            if not all(map(is_, map(namespace.get, of_names), of_values)):
                return False
        # Else all later imports would be compared one namespace after the other, too.
        self._note()
        return True

    def _note(self) -> None:
        self._sizes = [*map(len, self._namespaces)]
        self._names = [*chain.from_iterable(self._namespaces)]
        self._values = [*self._all_values()]

    def _all_values(self) -> Iterator[Any]:
        return chain.from_iterable([each.values() for each in self._namespaces])


def _facts() -> tuple[Any, ...]:
    """Return facts about this process that an import may change, and another one notice."""
    root = logging.getLogger()
    return (
        _working_folder(),
        dict(vars(os.environ)["_data"]),  # without its reads being recorded as the file's
        tuple(sys.path),
        tuple(sys.argv),
        tuple(map(id, (*sys.meta_path, *sys.path_hooks))),
        tuple(map(id, (sys.stdin, sys.stdout, sys.stderr, sys.excepthook, sys.displayhook))),
        tuple(map(_identity, range(3))),
        sys.getrecursionlimit(),
        sys.gettrace(),
        sys.getprofile(),
        threading.active_count(),
        tuple(map(_getsignal, _SIGNALS)),
        (root.level, tuple(map(id, root.handlers)), tuple(map(id, root.filters))),
        logging.root.manager.disable,
        locale.setlocale(locale.LC_ALL),
        len(vars(builtins)),
    )


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        facts = os.fstat(descriptor)
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino)


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a text, as it is compared
    except OSError:
        return None
