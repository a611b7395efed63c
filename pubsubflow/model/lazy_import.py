"""Lazy import of modules that are expensive and that most processes never use."""

import errno
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from threading import RLock
from types import ModuleType
from typing import Any


class _LazyModule(ModuleType):
    """Stands for a module, which is imported when one of its attributes is used.

    Unlike what importlib.util.LazyLoader makes, it is not the module itself: an import that fails,
    as while no file can be opened, leaves nothing half loaded, and the next use tries again.
    """

    def __getattr__(self, name: str) -> Any:
        with _shortages_translated(self.__name__):
            value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value


class _LazyPackage(ModuleType):
    """A package whose own code runs when one of its names is used; its modules need not have it."""

    _lock = RLock()
    _running = False

    def __getattr__(self, name: str) -> Any:
        with _shortages_translated(self.__name__):
            below = f"{self.__name__}.{name}"
            if importlib.util.find_spec(below) is not None:
                return import_module(below)
            with self._lock:
                if type(self) is _LazyPackage and not self._running:
                    self._run()
        return ModuleType.__getattribute__(self, name)

    def _run(self) -> None:
        """Run the package's code; one that fails runs again for the next name."""
        spec = self.__spec__
        if spec is None or spec.loader is None:
            raise ImportError(f"{self.__name__} has no code", name=self.__name__)
        self._running = True
        try:
            spec.loader.exec_module(self)
        finally:
            del self._running
        self.__class__ = ModuleType  # type: ignore[assignment] # a module from now on


@contextmanager
def _shortages_translated(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        # The linker says in words alone why it cannot open a library.
        if (shortage := os.strerror(errno.EMFILE)) in str(error):
            raise OSError(errno.EMFILE, shortage, name) from error
        raise


def lazy_module(name: str) -> ModuleType:
    """Return a module that is imported when one of its attributes is first used.

    Raises:
        ModuleNotFoundError: The module is not installed.
    """
    if name in sys.modules:
        return sys.modules[name]
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"no module named {name!r}", name=name)
    return _LazyModule(name)


def defer_package(name: str, **attributes: object) -> None:
    """Have a package run its own code when one of its names is first used, if it is not loaded yet.

    Its modules can be imported before that, by those who need not what the package gathers.

    Args:
        name: The package.
        attributes: What its modules read from it, which runs its code if it is left out.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"no module named {name!r}", name=name)
    package = _LazyPackage(name)
    package.__spec__, package.__path__ = spec, spec.submodule_search_locations or []
    package.__file__, package.__loader__ = spec.origin, spec.loader
    package.__package__ = name
    vars(package).update(attributes)
    sys.modules[name] = package


@contextmanager
def deferred(name: str) -> Iterator[None]:
    """Have those who import a module below a package meanwhile do so when they first use it."""
    parent, _, own = name.rpartition(".")
    if name in sys.modules:
        yield
        return
    stand_in = sys.modules[name] = _LazyModule(name)
    try:
        yield
    finally:
        del sys.modules[name]
    setattr(sys.modules[parent], own, stand_in)


def attributes_so_far(module: object) -> Mapping[str, Any]:
    """Return the attributes of a module, without having one loaded that is imported lazily."""
    try:
        found: Mapping[str, Any] = object.__getattribute__(module, "__dict__")
    except AttributeError:  # programs put other things among the modules, too
        return {}
    return found


@contextmanager
def hidden(*modules: str) -> Iterator[None]:
    """Make every import of some modules fail, for a library that uses them where it can."""
    known = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(dict.fromkeys(modules))  # type: ignore[arg-type] # as the import system has it
    try:
        yield
    finally:
        for name, module in known.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def lazy_names(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose names are imported at their first use.

    Settings are read by every command that runs locally, and are in the packages of their services,
    which must not be imported with them.

    Args:
        package: Name of the package.
        homes: Module below the package → the names that the package has from it.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def find(name: str) -> Any:
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
