"""The start of a process in the interpreter that has Airflow: finds pubsubflow, calls a function.

It is run by its path, so that nothing else of the place where pubsubflow is installed can be
imported: `python start.py package.module:function ARGUMENT…`.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

_PACKAGE = "pubsubflow"


def main() -> None:
    """Call the function that the first argument names with the others."""
    folder = Path(__file__).resolve().parent.parent.parent
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [place for place in sys.path if place != here]
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is not the package {_PACKAGE}")
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    spec.loader.exec_module(package)
    module, _, function = sys.argv[1].partition(":")
    getattr(importlib.import_module(module), function)(*sys.argv[2:])


if __name__ == "__main__":
    main()
