"""The demo's four DAGs, run without servers, give the numbers computed another way."""

import runpy
from pathlib import Path

import msgspec

from pubsubflow.demo import story

EXPECTED = Path(__file__).parents[1] / "demo" / "expected_report.py"


def test_the_demo_in_process(pipeline, tmp_path):
    arrival = story.arrival(tmp_path)
    ingest = pipeline.ingest.test(events=[(arrival["dataset"], arrival["extra"])])
    months = pipeline.monthly_delays.test(events=ingest.emitted)
    weather = pipeline.weather_delays.test(events=ingest.emitted)
    report = pipeline.report.test(events=months.emitted + weather.emitted)

    runs = (ingest, months, weather, report)
    assert [run.state for run in runs] == ["success"] * 4
    assert len(months.tasks["measure"]) == len(months.result("months"))
    assert [event.dataset for event in report.emitted] == [pipeline.report_files.uri]

    expected = runpy.run_path(str(EXPECTED))["expected_report"](story.data_file())
    written = msgspec.json.decode((tmp_path / "report.json").read_bytes())
    for found in (report.result("publish"), written):
        assert {name: found[name] for name in expected} == expected
