"""Lazy import of modules that are expensive and that most processes never use."""

import errno
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any


class _LazyModule(ModuleType):
    """Stands for a module, which is imported when one of its attributes is used.

    Unlike what importlib.util.LazyLoader makes, it is not the module itself: an import that fails,
    as while no file can be opened, leaves nothing half loaded, and the next use tries again.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            value = getattr(import_module(self.__name__), name)
        except ImportError as error:
            # The linker says in words alone why it cannot open a library.
            if (shortage := os.strerror(errno.EMFILE)) in str(error):
                raise OSError(errno.EMFILE, shortage, self.__name__) from error
            raise
        setattr(self, name, value)
        return value


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
