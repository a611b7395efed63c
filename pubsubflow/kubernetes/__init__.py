"""Kubernetes: an executor that runs each attempt in a pod; see docs/kubernetes.md.

DAG files import `Pod` alone, which needs no client of Kubernetes.
"""

from pubsubflow.kubernetes.options import Pod

__all__ = ["Pod"]
