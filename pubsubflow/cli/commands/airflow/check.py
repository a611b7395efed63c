"""Checks whether Airflow's DAG files run here, without starting anything."""

import os
import sys
from pathlib import Path
from typing import Literal

from pubsubflow.airflow.outside.check import AirflowFile, AirflowReport, check_folder
from pubsubflow.airflow.outside.environments import environment_python
from pubsubflow.airflow.outside.interpreter import find_python, probe
from pubsubflow.airflow.transfer.exports import read_connections, read_variables
from pubsubflow.cli import output
from pubsubflow.cli.commands.airflow.html_report import html_report
from pubsubflow.cli.status_line import StatusLine
from pubsubflow.cli.texts import Text
from pubsubflow.config.sources import home_of, read_sources
from pubsubflow.errors import ConfigError

_WORDS = {"runs": "runs", "note": "runs with a note", "cannot": "cannot run"}
_EFFECTS = {
    "legacy": "",
    "changed": " (may mean something else)",
    "ignored": " (has no effect)",
    "fails": " (fails)",
}
_STYLES = {"runs": "green", "note": "yellow", "cannot": "red"}


def check(
    dags: Path,
    /,
    *,
    python: str | None = None,
    requirements: Path | None = None,
    airflow_home: Path | None = None,
    variables: Path | None = None,
    connections: Path | None = None,
    no_legacy: bool = False,
    format: Literal["table", "json", "html"] = "table",
) -> int:
    """Check whether Airflow's DAG files run here, and what to write where not.

    Nothing is started and nothing stored. The exit code is 1 if a file cannot run.

    Args:
        dags: The folder of the DAG files, or one file.
        python: An interpreter with Airflow 3.2 or newer, its providers and msgspec; that of the
            `airflow` on the path if left out.
        requirements: In its place a file of requirements as pip reads it: an environment is made
            of it, once, and kept in the home folder.
        airflow_home: The folder of `airflow.cfg` and `plugins`; AIRFLOW_HOME if left out.
        variables: What variables hold: a file that `airflow variables export` has written.
        connections: Likewise connections, of `airflow connections export`.
        no_legacy: Take files as Airflow 3 does, without replacing names of 1.10 and 2.x.
        format: How the report is printed.
    """
    interpreter = probe(_interpreter(python, requirements))
    with StatusLine() as line:
        report = check_folder(
            dags,
            interpreter,
            home=airflow_home,
            legacy=not no_legacy,
            variables=_texts(variables),
            connections=read_connections(connections) if connections else None,
            on_progress=lambda done, total: line.show("DAG files loaded", done, total),
        )
    if format == "json":
        output.show_json(report)
    elif format == "html":
        sys.stdout.write(html_report(report))
    else:
        _show(report)
    return 1 if report.counts["cannot"] else 0


def _interpreter(python: str | None, requirements: Path | None) -> str:
    if requirements is None:
        return python or find_python()
    if python is not None:
        raise ConfigError("name either --python or --requirements")
    home = home_of(read_sources(file=None, environ=os.environ, flags={}))
    with StatusLine() as line:
        line.show(f"making an environment of {requirements}")
        return environment_python(requirements, home / "airflow" / "environments")


def _texts(file: Path | None) -> dict[str, str] | None:
    return {name: each.text for name, each in read_variables(file).items()} if file else None


def _show(report: AirflowReport) -> None:
    for file in report.files:
        _show_file(file)
    for name, error in report.plugin_errors.items():
        output.show(Text(f"plugin {name}: {error}", "red"))
    for name in report.listeners:
        output.show(Text(f"plugin {name}: its listeners are called for tasks alone", "yellow"))
    if not report.files:
        output.show(f"no DAG files in {report.folder}")
        return
    output.show(Text(_total(report), "bold"))


def _total(report: AirflowReport) -> str:
    counts, number = report.counts, len(report.files)
    return (
        f"{number} file{'s' * (number != 1)}: {counts['runs']} run, {counts['note']} run with a "
        f"note, {counts['cannot']} cannot run; {report.dags} DAG{'s' * (report.dags != 1)}, "
        f"{report.tasks} task{'s' * (report.tasks != 1)}; Airflow {report.airflow}, "
        f"Python {report.python}"
    )


def _show_file(file: AirflowFile) -> None:
    names = ", ".join(dag.dag_id for dag in file.dags) or "no DAGs"
    word = (_WORDS[file.outcome], _STYLES[file.outcome])
    output.show(Text.assemble((f"{file.file}: ", "bold"), word, f": {names}"))
    for error in file.errors:
        line = f"{error.file}:{error.line}: " if error.line else ""
        output.show(Text(f"  {line}{error.reason}", "red"))
        if error.remedy:
            output.show(f"    → {error.remedy}")
    for note in file.notes:
        style = "red" if note.kind == "fails" else ""
        place = f"{note.file}:{note.line}: " if note.line else ""
        output.show(Text(f"  {place}{note.text}{_EFFECTS[note.kind]}", style))
    for name in file.defaulted:
        output.show(f"  the variable {name!r} is read while the file loads; its default counts")
