"""The report of Airflow's files as one page of HTML, which loads nothing."""

from collections.abc import Iterator
from html import escape

from pubsubflow.airflow.findings import LoadError, Note
from pubsubflow.airflow.outside.check import AirflowFile, AirflowReport

_WORDS = {"runs": "runs", "note": "runs with a note", "cannot": "cannot run"}
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
       color: #1c1c1e; background: #fff }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-top: 1px solid #ddd }
td.number, th.number { text-align: right }
code { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere }
.runs { color: #176b3a } .note { color: #7a5200 } .cannot, .fails { color: #a3190f }
.outcome { font-weight: 600; white-space: nowrap }
ul { margin: .2rem 0; padding-left: 1.1rem }
@media (prefers-color-scheme: dark) {
  body { color: #eee; background: #161618 } th, td { border-color: #444 }
  .runs { color: #6fd08c } .note { color: #e5b454 } .cannot, .fails { color: #ff8a80 }
}
"""


def html_report(report: AirflowReport) -> str:
    """Return the report as a page."""
    counts = report.counts
    summary = (
        f"{len(report.files)} files: {counts['runs']} run, {counts['note']} run with a note, "
        f"{counts['cannot']} cannot run; {report.dags} DAGs, {report.tasks} tasks"
    )
    rows = "".join(map(_row, report.files))
    title = f"Airflow's files in {report.folder}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{escape(summary)}. Checked with Airflow {escape(report.airflow)}, Python
{escape(report.python)}.</p>
{_surroundings(report)}<table>
<thead><tr><th scope="col">File</th><th scope="col">Result</th><th scope="col">DAGs</th>
<th scope="col" class="number">Tasks</th><th scope="col">Lines</th></tr></thead>
<tbody>
{rows}</tbody>
</table>
</body>
</html>
"""


def _surroundings(report: AirflowReport) -> str:
    lines = [f"<code>{escape(name)} = {escape(v)}</code>" for name, v in report.settings.items()]
    lines += [
        f'<span class="cannot">plugin {escape(name)}: {escape(error)}</span>'
        for name, error in report.plugin_errors.items()
    ]
    lines += [
        f'<span class="note">plugin {escape(name)}: its listeners are called for tasks alone</span>'
        for name in report.listeners
    ]
    return f"<ul>{''.join(f'<li>{each}</li>' for each in lines)}</ul>\n"


def _row(file: AirflowFile) -> str:
    tasks = sum(len(dag.tasks) for dag in file.dags)
    names = ", ".join(dag.dag_id for dag in file.dags) or "no DAGs"
    lines = "".join(f"<li>{each}</li>" for each in _lines(file))
    shown = f"<ul>{lines}</ul>" if lines else ""
    return (
        f"<tr><td><code>{escape(file.file)}</code></td>"
        f'<td class="outcome {file.outcome}">{_WORDS[file.outcome]}</td>'
        f'<td>{escape(names)}</td><td class="number">{tasks}</td><td>{shown}</td></tr>\n'
    )


def _lines(file: AirflowFile) -> Iterator[str]:
    for error in file.errors:
        yield _error(error)
    for note in file.notes:
        yield _note(note)
    for name in file.defaulted:
        text = f"the variable {name!r} is read while the file loads; its default counts"
        yield escape(text)


def _error(error: LoadError) -> str:
    place = f"<code>{escape(error.file)}:{error.line}</code> " if error.line else ""
    remedy = f" → {escape(error.remedy)}" if error.remedy else ""
    return f'<span class="cannot">{place}{escape(error.reason)}</span>{remedy}'


def _note(note: Note) -> str:
    place = f"<code>{escape(note.file)}:{note.line}</code> " if note.line else ""
    remedy = f" → <code>{escape(note.today)}</code>" if note.today else ""
    return f'<span class="{note.kind}">{place}{escape(note.use)}</span>{remedy}'
