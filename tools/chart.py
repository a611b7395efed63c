"""Renders the Helm chart by Helm's own code, into the files that tests check.

It needs `helm-python-sdk`, which brings Helm as a library: `make chart` has an environment for it.
Tests read what is rendered here, and find by the digest that it is of the present chart.
"""

import hashlib
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "pubsubflow"
RENDERED = ROOT / "tests" / "unit" / "deploy" / "chart"
_SECRET = {"natsToken": "token", "postgresPassword": "password", "keys": "psfkey_\n"}
_HPA = {"queues": ["gpu"], "autoscaling": {"kind": "hpa", "min": 1, "max": 4}}
_PODS = {"queues": ["default"], "pods": {"namespace": "jobs", "namespaces": ["gpu"]}}
CASES: dict[str, dict[str, Any]] = {
    # Everything of the chart's own.
    "whole": {
        "secret": _SECRET,
        "dags": {"files": {"a.py": "import pubsubflow\n"}},
        "workers": {"pods": _PODS},
    },
    # Servers, secrets and DAG files that exist; roles apart; all that is optional.
    "external": {
        "secret": {"existing": "theirs"},
        "nats": {"enabled": False, "url": "nats://nats-1:4222,nats://nats-2:4222"},
        "postgres": {"enabled": False, "url": "postgres://psf@pg-1,pg-2/psf"},
        "dags": {"volume": {"persistentVolumeClaim": {"claimName": "dags"}}},
        "daemons": {
            "daemon": {"roles": ["manager", "scheduler", "triggerer"], "replicas": 1},
            "api": {"roles": ["api"], "replicas": 3},
        },
        "workers": {"default": {"autoscaling": {"kind": "keda"}}, "gpu": _HPA},
        "serviceMonitor": {"enabled": True, "tokenSecret": {"name": "scrapes"}},
        "networkPolicy": {"from": [{"namespaceSelector": {}}]},
    },
}


def digest() -> str:
    """Return the SHA-256 of all files of the chart."""
    whole = hashlib.sha256()
    for path in sorted(path for path in CHART.rglob("*") if path.is_file()):
        whole.update(f"{path.relative_to(CHART).as_posix()}\0".encode() + path.read_bytes())
    return whole.hexdigest()


def main() -> None:
    """Lint the chart, and write each case."""
    helm = import_module("helm_python")
    found = [
        each for each in helm.lint(str(CHART), strict=True)["messages"] if each["severity"] > 1
    ]
    if found:
        raise SystemExit(f"the chart is wrong: {found}")
    chart = helm.Chart.load(str(CHART))
    RENDERED.mkdir(exist_ok=True)
    for name, values in CASES.items():
        rendered = chart.render(values, name="psf", namespace="data")
        parts = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
        text = "\n---\n".join(part.strip("\n-") for part in parts if part.strip())
        header = f"# Rendered by `make chart` from chart {digest()}\n"
        (RENDERED / f"{name}.yaml").write_text(header + text + "\n", encoding="utf-8")
    sys.stdout.write(f"rendered {', '.join(CASES)} with Helm {helm.helm_sdk_version()}\n")


if __name__ == "__main__":
    main()
