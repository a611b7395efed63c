"""Tests of the DAGs, without a daemon: python -m pytest."""

from sales import build_report, ingest, orders


def test_the_report_adds_up_what_was_loaded() -> None:
    loaded = ingest.test({"rows": 5})
    assert loaded.state == "success"
    built = build_report.test(events=[*loaded.emitted, (orders, {"rows": 2})])
    assert built.result("publish") == "7 rows"
