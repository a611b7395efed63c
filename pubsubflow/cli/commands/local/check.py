"""Imports DAG files without a daemon and reports their errors."""

from functools import partial
from pathlib import Path

import anyio
import msgspec
from msgspec import Struct

from pubsubflow.airflow.outside.standalone import running_bundles
from pubsubflow.cli import output
from pubsubflow.cli.commands.local.settings import local_config
from pubsubflow.cli.status_line import StatusLine
from pubsubflow.cli.texts import Text
from pubsubflow.loader.once import load_once
from pubsubflow.model.limits.rates import RateLimitSpec
from pubsubflow.model.spec import LoadedFile

DEFAULT_FOLDER = Path("dags")
_NAMES_SHOWN = 10


class FileReport(Struct, frozen=True):
    """The result of importing one file, in JSON."""

    file: str
    dags: list[str]
    error: str | None
    seconds: float
    warnings: list[str]


def check(
    folder: Path = DEFAULT_FOLDER,
    /,
    *,
    config: Path | None = None,
    json: bool = False,
) -> int:
    """Import DAG files here, without a daemon, and fail if one of them cannot be imported.

    Args:
        folder: A folder of DAG files, or one file.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Print JSON.
    """
    settings = local_config(config)
    with running_bundles(settings.bundles, settings.home) as bundles, StatusLine() as line:
        load = partial(
            load_once,
            folder,
            settings=settings.loader,
            on_progress=partial(line.show, "DAG files imported"),
            kinds=bundles.kinds,
            elsewhere=bundles.elsewhere,
        )
        files = _with_rate_conflicts(anyio.run(load))
    if json:
        output.show_list(map(_report, files))
    else:
        for file in files:
            _show_file(file)
        _show_total(files, folder)
    return 1 if any(file.error for file in files) else 0


def _with_rate_conflicts(files: list[LoadedFile]) -> list[LoadedFile]:
    """Warn of rate limits that are declared in different ways: the last one loaded counts."""
    first: dict[str, tuple[RateLimitSpec, str]] = {}
    checked = []
    for file in files:
        warnings = []
        for dag in file.dags:
            for task in dag.tasks:
                if (rate := task.rate_limit) is None:
                    continue
                where = f"DAG {dag.dag_id!r}, task {task.task_id!r}"
                other, place = first.setdefault(rate.name, (rate, where))
                if other != rate:
                    warnings.append(
                        f"{where}: rate limit {rate.name!r} is {rate.describe()} "
                        f"(burst {rate.burst}) here and {other.describe()} (burst {other.burst}) "
                        f"in {place}: the last one loaded counts for both; declare it once, in a "
                        "module that both import"
                    )
        checked.append(msgspec.structs.replace(file, warnings=(*file.warnings, *warnings)))
    return checked


def _report(file: LoadedFile) -> FileReport:
    dags = [dag.dag_id for dag in file.dags]
    return FileReport(file.file, dags, file.error, round(file.seconds, 3), list(file.warnings))


def _show_file(file: LoadedFile) -> None:
    if file.error is None:
        names = _names([dag.dag_id for dag in file.dags])
        took = Text(f"  {file.seconds * 1000:.0f} ms", "dim")
        output.show(Text.assemble((f"{file.file}: ", "bold"), names, took))
    else:
        output.show(Text(_name_file(file.file, file.error), "red"))
    for warning in file.warnings:
        output.show(Text(f"{file.file}: {warning}", "yellow"))


def _names(dag_ids: list[str]) -> str:
    """Return the ids in one line, of a factory's the first ones."""
    more = len(dag_ids) - _NAMES_SHOWN
    if more > 1:
        return f"{', '.join(dag_ids[:_NAMES_SHOWN])} and {more} more"
    return ", ".join(dag_ids) or "no DAGs"


def _name_file(name: str, error: str) -> str:
    return error if error.startswith(name) else f"{name}: {error}"


def _show_total(files: list[LoadedFile], folder: Path) -> None:
    dags = sum(len(file.dags) for file in files)
    broken = sum(file.error is not None for file in files)
    text = f"{dags} DAG{'s' * (dags != 1)} in {len(files)} file{'s' * (len(files) != 1)}"
    if not files:
        text = f"no DAG files in {folder}"
    elif broken:
        text += f", {broken} of which cannot be imported"
    output.show(text)
