import json
from itertools import pairwise
from xml.etree import ElementTree as ET

from pubsubflow.demo import chart, flights, pages, scenario
from support.expected_report import expected_report

SVG = "{http://www.w3.org/2000/svg}"


def test_report_files_hold_the_numbers(database):
    numbers = flights.summarise(database)
    paths = pages.write(database.parent, numbers)
    assert [path.name for path in paths] == ["report.json", "report.md", "report.svg"]
    assert json.loads(paths[0].read_text()) == expected_report(scenario.data_file())


def test_page_states_the_findings(database):
    page = pages.markdown(flights.summarise(database))
    assert "| rain | 934 | 16,738 | 7.2 | 39.7 | 31.0 |" in page
    assert "| 2013-12 | 34.8 | 26.3 | 25.1 |" in page
    assert "- wind_mph impossible: 1" in page
    assert "![Late departures by month and by weather](report.svg)" in page


def test_chart_draws_every_number_in_its_frame(database):
    numbers = flights.summarise(database)
    picture = ET.fromstring(chart.draw(numbers))
    assert len(picture.findall(f"{SVG}circle")) == len(numbers["months"]) == 36
    assert len(picture.findall(f"{SVG}polyline")) == 3
    bars = picture.findall(f"{SVG}rect")[1:]
    widths = [float(bar.get("width")) for bar in bars]
    per_percent = widths[0] / numbers["weather"][0]["late_percent"]
    for width, row in zip(widths, numbers["weather"], strict=True):
        assert abs(width - per_percent * row["late_percent"]) < 0.2
    for circle in picture.findall(f"{SVG}circle"):
        assert chart.BY_MONTH.top <= float(circle.get("cy")) <= chart.BY_MONTH.y(0)


def test_chart_labels_do_not_overlap(database):
    picture = ET.fromstring(chart.draw(flights.summarise(database)))
    ends = [
        float(label.get("y"))
        for label in picture.findall(f"{SVG}text")
        if label.text in chart.COLOURS
    ]
    assert len(ends) == 3
    ends.sort()
    gaps = [below - above for above, below in pairwise(ends)]
    assert min(gaps) >= chart.LABEL_GAP - 0.1


def test_chart_of_one_month_and_one_airport():
    row = flights.with_shares(
        {"hours": 1, "scheduled": 2, "cancelled": 0, "late": 0, "delay_min": -3}
    )
    numbers = {
        "departures": row,
        "months": [row | {"month": "2013-01", "airport": "A<B"}],
        "weather": [row | {"weather": "fair"}],
    }
    assert "A&lt;B" in chart.draw(numbers)
