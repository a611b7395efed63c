"""The demo's four DAGs, run without servers, give the numbers computed another way."""

import msgspec

from pubsubflow.demo import scenario
from support.expected_report import expected_report


def test_the_demo_in_process(pipeline, tmp_path):
    arrival = scenario.arrival(tmp_path)
    ingest = pipeline.ingest.test(events=[(arrival["dataset"], arrival["extra"])])
    months = pipeline.monthly_delays.test(events=ingest.emitted)
    weather = pipeline.weather_delays.test(events=ingest.emitted)
    report = pipeline.report.test(events=months.emitted + weather.emitted)

    runs = (ingest, months, weather, report)
    assert [run.state for run in runs] == ["success"] * 4
    assert len(months.tasks["measure"]) == len(months.result("months"))
    assert [event.dataset for event in report.emitted] == [pipeline.report_files.uri]

    expected = expected_report(scenario.data_file())
    written = msgspec.json.decode((tmp_path / "report.json").read_bytes())
    for found in (report.result("publish"), written):
        assert {name: found[name] for name in expected} == expected
