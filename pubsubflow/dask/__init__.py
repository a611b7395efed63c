"""Dask: an executor that runs attempts on the workers of a Dask cluster; see docs/dask.md.

DAG files import `Dask` alone, which needs no library of Dask.
"""

from pubsubflow.dask.options import Dask

__all__ = ["Dask"]
