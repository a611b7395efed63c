import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console

from pubsubflow.demo import flights, scenario

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def rendered(runs, numbers, places):
    console = Console(file=io.StringIO(), width=100)
    console.print(scenario.render_result(runs, numbers, places))
    return console.file.getvalue()


def run(dag_id, after, took, cause, state="success"):
    started = BEGIN + timedelta(milliseconds=after)
    ended = None if took is None else started + timedelta(milliseconds=took)
    return scenario.RunLine(dag_id=dag_id, state=state, started=started, ended=ended, cause=cause)


def test_runs_are_shown_in_order_with_the_report(database):
    runs = [
        run("report", 1500, None, "monthly_delays, weather_delays", state="running"),
        run("ingest", 0, 1204, scenario.LANDING),
    ]
    text = rendered(runs, flights.summarise(database), {"page": "http://127.0.0.1:8080"})
    lines = text.splitlines()
    first = next(index for index, line in enumerate(lines) if "ingest" in line)
    assert lines[first].split() == ["0", "ms", "ingest", "success", "1,204", "ms", scenario.LANDING]
    assert lines[first + 1].split()[:4] == ["1,500", "ms", "report", "running"]
    assert "26,106 rows loaded, 9 refused (hour repeated: 3, temp_f missing: 1" in text
    assert "335,125 departures: 2.5 % cancelled, 22.2 % late, 12.6 min mean delay" in text
    assert "http://127.0.0.1:8080" in text


def test_worst_weather_has_the_longest_bar(database):
    text = rendered([run("ingest", 0, 1, "")], flights.summarise(database), {})
    bars = {line.split()[0]: line.count("█") for line in text.splitlines() if "█" in line}
    assert max(bars, key=bars.get) == "rain"
    assert bars["rain"] == 24


def test_arrival_names_the_file_and_the_folder(tmp_path):
    assert scenario.arrival(tmp_path) == {
        "dataset": scenario.LANDING,
        "extra": {"path": str(scenario.data_file()), "work_dir": str(tmp_path)},
    }
    assert scenario.arrival(tmp_path, Path("/a.csv"))["extra"]["path"] == "/a.csv"


def test_data_and_dags_are_shipped():
    assert scenario.data_file().is_file()
    assert scenario.data_file().with_name("SOURCE.md").is_file()
    assert (scenario.dags_folder() / "nyc_flights.py").is_file()
