"""Figures: measured values and their targets."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Return median, 99th percentile, least and greatest."""
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), digits),
        "p99": round(quantile(ordered, 0.99), digits),
        "min": round(ordered[0], digits),
        "max": round(ordered[-1], digits),
        "n": len(ordered),
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line of least squares through points that differ in their first."""
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    square = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / square


def over_floor(figure: Mapping[str, Any]) -> str:
    """Return how many times its floor a figure is, as text; empty if it has none."""
    floor = figure.get("floor")
    return f"{figure['value'] / floor:.2f}" if floor else ""


def figure(
    name: str, value: float, unit: str, *, target: float, more: bool = False, **facts: Any
) -> dict[str, Any]:
    """Return one figure against its target.

    Args:
        name: What was measured.
        value: The median, where there are several samples.
        unit: Of the value.
        target: What it should be.
        more: When greater is better.
        facts: Further facts; `floor` is what the same takes without the product, in that unit.
    """
    met = value >= target if more else value <= target
    return {"name": name, "value": value, "unit": unit, "target": target, "met": met, **facts}
