"""Lazy import of modules that are expensive and that most processes never use."""

import importlib.util
import sys
from types import ModuleType


def lazy_module(name: str) -> ModuleType:
    """Return a module that is imported when one of its attributes is first used.

    Source: the recipe "Implementing lazy imports" of the importlib documentation.

    Raises:
        ModuleNotFoundError: The module is not installed.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"no module named {name!r}", name=name)
    # exec_module() below only prepares the module; it runs at the first use of an attribute.
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
