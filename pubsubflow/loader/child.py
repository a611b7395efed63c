"""The import of DAG files in a child process, one after the other."""

import signal
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath

import msgspec

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.dag_files import BundleFolder, users_text
from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.registry import LoadedDefinitions
from pubsubflow.authoring.template_checks import check_templates, template_warnings
from pubsubflow.authoring.webhooks import Webhook
from pubsubflow.errors import DefinitionError
from pubsubflow.loader.clean_slate import CleanSlate
from pubsubflow.loader.evidence.recorder import EvidenceRecorder
from pubsubflow.loader.import_errors import ImportTimeout, describe_error
from pubsubflow.loader.messages import ImportRequest, ImportResult
from pubsubflow.loader.reads import ReadRecorder
from pubsubflow.model.alerts import describe_conflict
from pubsubflow.model.spec import DatasetSpec, LoadedFile
from pubsubflow.runner.failures import user_traceback
from pubsubflow.runner.frames import receive_frame, send_frame
from pubsubflow.runner.task_account import account_hint

_CERTAIN = (SyntaxError, DefinitionError)


def import_files(sock: socket.socket, argument: bytes) -> None:
    """Import the file that an encoded ImportRequest names, and send an encoded ImportResult.

    Then the file of the next request, while nothing of those before is left in this process.
    """
    request = msgspec.msgpack.decode(argument, type=ImportRequest)
    folder = BundleFolder.enter(request.folder, request.root, request.kind)
    recorder = ReadRecorder.start(folder)
    # What other kinds of files depend on is another interpreter's to know.
    evidence = None if request.kind else EvidenceRecorder.start(folder)
    slate = CleanSlate(folder)
    clean = True
    while clean:
        result = _import(request, folder, recorder)
        found = None if evidence is None else evidence.evidence()
        clean = result.loaded.error is None and slate.wipe()
        result = msgspec.structs.replace(result, clean=clean, evidence=found)
        send_frame(sock, msgspec.msgpack.encode(result))
        if clean:
            request = msgspec.msgpack.decode(receive_frame(sock), type=ImportRequest)
            recorder.forget()
            if evidence is not None:
                evidence.forget()


def _import(request: ImportRequest, folder: BundleFolder, recorder: ReadRecorder) -> ImportResult:
    """Import one file; whatever goes wrong in it becomes the error of the result."""
    started = time.monotonic()
    collected = LoadedDefinitions(request.path, request.variables, request.secrets)
    try:
        _arm(request.seconds)
        folder.execute(request.path, collected)
        dags: dict[str, DAG] = collected.dags
        for dag in dags.values():
            check_templates(dag)
        warnings = (
            *(line for dag in dags.values() for line in _warnings(dag)),
            *_freshness_warnings(collected.datasets),
        )
        # The content of what was read is the loader's to say: it has the manifest.
        now = datetime.now(UTC)
        specs = tuple(dag.with_ticks(dag.to_spec(request.file, ""), now) for dag in dags.values())
        _disarm()
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        _disarm()
        loaded = LoadedFile(
            request.file,
            error=users_text(describe_error(error, request.root, request.path))
            + account_hint(error),
            traceback=user_traceback(error),
            seconds=time.monotonic() - started,
        )
        outside = not isinstance(error, _CERTAIN)
        return ImportResult(
            loaded,
            recorder.reads(),
            outside=outside,
            variables=collected.used,
            wanted=tuple(collected.wanted),
        )
    return ImportResult(
        LoadedFile(
            request.file,
            dags=specs,
            datasets=_datasets(collected),
            seconds=time.monotonic() - started,
            hooks=tuple(hook.to_spec() for hook in collected.hooks.values()),
            warnings=warnings,
        ),
        recorder.reads(),
        _foreign(request, dags),
        _foreign(request, collected.hooks),
        variables=collected.used,
        wanted=tuple(collected.wanted),
    )


def _datasets(collected: LoadedDefinitions) -> tuple[DatasetSpec, ...]:
    """Return each dataset once; what one declaration leaves out comes from another."""
    found: dict[str, DatasetSpec] = {}
    for dataset in collected.datasets:
        found[dataset.uri] = _merged(found.get(dataset.uri), dataset)
    return tuple(found.values())


def _merged(first: DatasetSpec | None, dataset: Dataset) -> DatasetSpec:
    spec = dataset.to_spec()
    if first is None:
        return spec
    watch = first if first.watch_name is not None else spec
    declared = [each.fresh for each in (first, spec) if each.fresh is not None]
    return DatasetSpec(
        spec.uri,
        first.name or spec.name,
        first.group or spec.group,
        first.extra or spec.extra,
        watch.watch_name,
        watch.watch_data,
        min(declared, key=lambda each: each.precedence, default=None),
    )


def _foreign(request: ImportRequest, made: Mapping[str, DAG | Webhook]) -> dict[str, str]:
    """Return name → file for what another module of the bundle defines."""
    base = request.file.removesuffix(request.path)
    found: dict[str, str] = {}
    for name, each in made.items():
        path = PurePosixPath(each.module_file or "")
        if path.is_relative_to(request.root):
            file = base + path.relative_to(request.root).as_posix()
            if file != request.file:
                found[name] = file
    return found


def _warnings(dag: DAG) -> Iterator[str]:
    yield from (f"DAG {dag.dag_id!r}: {hint}" for hint in dag.hints)
    yield from template_warnings(dag)


def _freshness_warnings(datasets: Iterable[Dataset]) -> Iterator[str]:
    """Yield a warning for each declaration of the file that another one of it makes void."""
    declared: dict[str, set[float]] = {}
    for each in datasets:
        if each.fresh is not None:
            declared.setdefault(each.uri, set()).add(each.fresh)
    for uri, found in declared.items():
        for seconds in sorted(found - {min(found)}):
            yield describe_conflict(uri, seconds, min(found), "the same file")


def _arm(seconds: float) -> None:
    """Interrupt this thread at the time limit, so that the traceback shows where it hangs."""

    def stop(*_: object) -> None:
        raise ImportTimeout(seconds)

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
