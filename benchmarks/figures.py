"""Figures: measured values and their targets."""

import statistics
from collections.abc import Sequence
from typing import Any


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Return median, 99th percentile, least and greatest."""
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), digits),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], digits),
        "min": round(ordered[0], digits),
        "max": round(ordered[-1], digits),
        "n": len(ordered),
    }


def figure(
    name: str, value: float, unit: str, *, target: float, more: bool = False, **facts: Any
) -> dict[str, Any]:
    """Return one figure against its target; `more` when greater is better."""
    met = value >= target if more else value <= target
    return {"name": name, "value": value, "unit": unit, "target": target, "met": met, **facts}
