"""The import of one DAG file, in a child process."""

import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.dag_files import (
    execute_bundle,
    imported_modules,
    make_bundle,
    read_source,
)
from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.registry import LoadedDefinitions
from pubsubflow.authoring.template_checks import check_templates, template_warnings
from pubsubflow.authoring.webhooks import Webhook
from pubsubflow.loader.import_errors import ImportTimeout, describe_error
from pubsubflow.loader.messages import ImportRequest, ImportResult
from pubsubflow.model.spec import DatasetSpec, LoadedFile, SourceBundle
from pubsubflow.runner.failures import user_traceback
from pubsubflow.runner.frames import send_frame


def import_file(sock: socket.socket, argument: bytes) -> None:
    """Import the file that an encoded ImportRequest names, and send an encoded ImportResult."""
    request = msgspec.msgpack.decode(argument, type=ImportRequest)
    send_frame(sock, msgspec.msgpack.encode(run(request)))


def run(request: ImportRequest) -> ImportResult:
    """Import one file; whatever goes wrong in it becomes the error of the result."""
    started = time.monotonic()
    sys.dont_write_bytecode = True
    before = set(sys.modules)
    bundle = make_bundle(request.root, request.file, {})
    try:
        _arm(request.seconds)
        bundle = _own_bundle(request)
        collected = execute_bundle(bundle)
        bundle = _whole_bundle(bundle, before)
        dags: dict[str, DAG] = collected.dags
        for dag in dags.values():
            check_templates(dag)
        warnings = tuple(line for dag in dags.values() for line in template_warnings(dag))
        specs = tuple(dag.to_spec(request.file, bundle.hash) for dag in dags.values())
        _disarm()
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        _disarm()
        return ImportResult(
            LoadedFile(
                request.file,
                bundle,
                error=describe_error(error, request.root, request.file),
                traceback=user_traceback(error),
                seconds=time.monotonic() - started,
            )
        )
    return ImportResult(
        LoadedFile(
            request.file,
            bundle,
            specs,
            _datasets(collected),
            seconds=time.monotonic() - started,
            hooks=tuple(hook.to_spec() for hook in collected.hooks.values()),
            warnings=warnings,
        ),
        _foreign(request, dags),
        _foreign(request, collected.hooks),
    )


def _own_bundle(request: ImportRequest) -> SourceBundle:
    text = read_source(Path(request.root, request.file))
    return make_bundle(request.root, request.file, {request.file: text})


def _whole_bundle(bundle: SourceBundle, before: set[str]) -> SourceBundle:
    """Add the modules that the file imported."""
    # The file's own text last: it is what was executed, even if the file has changed meanwhile.
    return make_bundle(
        bundle.root, bundle.file, imported_modules(bundle.root, before) | bundle.files
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
    return DatasetSpec(
        spec.uri, first.name or spec.name, first.group or spec.group, first.extra or spec.extra
    )


def _foreign(request: ImportRequest, made: Mapping[str, DAG | Webhook]) -> dict[str, str]:
    """Return name → file for what another module of the folder defines."""
    found: dict[str, str] = {}
    for name, each in made.items():
        path = Path(each.module_file or "").resolve()
        if path.is_relative_to(request.root):
            file = path.relative_to(request.root).as_posix()
            if file != request.file:
                found[name] = file
    return found


def _arm(seconds: float) -> None:
    """Interrupt this thread at the time limit, so that the traceback shows where it hangs."""

    def stop(*_: object) -> None:
        raise ImportTimeout(seconds)

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
