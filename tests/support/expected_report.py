"""Expected report of the demo, computed by loops over the CSV in exact decimals, without SQL."""

import csv
from collections import Counter, defaultdict
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path

COUNTS = ("hours", "scheduled", "cancelled", "late", "delay_min")


def expected_report(csv_path: Path) -> dict:
    """Return what `report.json` should hold for this file."""
    good, rejected = _sift(list(csv.reader(csv_path.read_text().splitlines()[1:])))
    months, weather = defaultdict(Counter), defaultdict(Counter)
    for airport, hour, _, wind, rain, visibility, *flights in good:
        counts = dict(zip(COUNTS, [1, *map(int, flights)], strict=True))
        if counts["scheduled"]:
            months[hour[:7], airport].update(counts)
            kind = _kind(Decimal(visibility), Decimal(rain), Decimal(wind))
            weather[kind].update(counts)
    total = sum(months.values(), Counter())
    total["delay_min"] = sum(counts["delay_min"] for counts in months.values())
    return {
        "accepted": len(good),
        "rejected": dict(rejected),
        "departures": _shares(total),
        "months": [
            {"month": month, "airport": airport} | _shares(months[month, airport])
            for month, airport in sorted(months)
        ],
        "weather": [
            {"weather": kind} | _shares(weather[kind])
            for kind in ("low visibility", "rain", "wind", "fair")
            if kind in weather
        ],
    }


def _sift(rows):
    """Separate the good rows from the rest: gaps first, then the gale, then hours seen before."""
    rejected = Counter()
    good = {}
    for row in rows:
        airport, hour, temperature, wind, *_ = row
        if temperature == "":
            rejected["temp_f missing"] += 1
        elif wind == "":
            rejected["wind_mph missing"] += 1
        elif Decimal(wind) > 150:
            rejected["wind_mph impossible"] += 1
        elif (airport, hour) in good:
            rejected["hour repeated"] += 1
        else:
            good[airport, hour] = row
    return list(good.values()), rejected


def _kind(visibility, rain, wind):
    if visibility < 3:
        return "low visibility"
    if rain > 0:
        return "rain"
    return "wind" if wind >= 20 else "fair"


def _shares(counts):
    scheduled, cancelled = counts["scheduled"], counts["cancelled"]
    flown = scheduled - cancelled
    return {name: counts[name] for name in COUNTS} | {
        "late_percent": _rounded(Fraction(100 * counts["late"], flown)),
        "cancelled_percent": _rounded(Fraction(100 * cancelled, scheduled)),
        "mean_delay": _rounded(Fraction(counts["delay_min"], flown)),
    }


def _rounded(exact):
    number = Decimal(exact.numerator) / Decimal(exact.denominator)
    return float(number.quantize(Decimal("0.01"), rounding=ROUND_HALF_EVEN))
