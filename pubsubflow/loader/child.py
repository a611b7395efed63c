"""Imports one DAG file; runs in a process of its own."""

import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.loading.importing import execute, make_bundle, modules_below, read_source
from pubsubflow.authoring.loading.registry import Collected
from pubsubflow.authoring.webhooks import Webhook
from pubsubflow.loader.import_errors import ImportTookTooLong, one_line, user_traceback
from pubsubflow.loader.messages import Imported, ImportOrder
from pubsubflow.model.spec import DatasetSpec, LoadedFile, SourceBundle
from pubsubflow.runner.frames import send_frame


def import_file(sock: socket.socket, argument: bytes) -> None:
    """Import the file that an encoded ImportOrder names and send an encoded Imported."""
    order = msgspec.msgpack.decode(argument, type=ImportOrder)
    send_frame(sock, msgspec.msgpack.encode(run(order)))


def run(order: ImportOrder) -> Imported:
    """Import one file; whatever goes wrong in it becomes the answer's error."""
    started = time.monotonic()
    sys.dont_write_bytecode = True
    before = set(sys.modules)
    bundle = make_bundle(order.root, order.file, {})
    try:
        _arm(order.seconds)
        bundle = _own_bundle(order)
        collected = execute(bundle)
        bundle = _whole_bundle(bundle, before)
        dags: dict[str, DAG] = collected.dags
        specs = tuple(dag.to_spec(order.file, bundle.hash) for dag in dags.values())
        _disarm()
    except BaseException as error:  # noqa: BLE001 - all that user code raises is the answer
        _disarm()
        return Imported(
            LoadedFile(
                order.file,
                bundle,
                error=one_line(error, order.root, order.file),
                traceback=user_traceback(error),
                seconds=time.monotonic() - started,
            )
        )
    return Imported(
        LoadedFile(
            order.file,
            bundle,
            specs,
            _datasets(collected),
            seconds=time.monotonic() - started,
            hooks=tuple(hook.to_spec() for hook in collected.hooks.values()),
        ),
        _borrowed(order, dags),
        _borrowed(order, collected.hooks),
    )


def _own_bundle(order: ImportOrder) -> SourceBundle:
    text = read_source(Path(order.root, order.file))
    return make_bundle(order.root, order.file, {order.file: text})


def _whole_bundle(bundle: SourceBundle, before: set[str]) -> SourceBundle:
    """Add the modules that the file imported, but keep the text of the file as it was run."""
    return make_bundle(bundle.root, bundle.file, modules_below(bundle.root, before) | bundle.files)


def _datasets(collected: Collected) -> tuple[DatasetSpec, ...]:
    """Return each dataset once; what one declaration leaves out another may say."""
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


def _borrowed(order: ImportOrder, made: Mapping[str, DAG | Webhook]) -> dict[str, str]:
    """Return name → file for what another module of the folder made."""
    found: dict[str, str] = {}
    for name, each in made.items():
        path = Path(each.module_file or "").resolve()
        if path.is_relative_to(order.root):
            file = path.relative_to(order.root).as_posix()
            if file != order.file:
                found[name] = file
    return found


def _arm(seconds: float) -> None:
    """Interrupt this thread when the time is over, so that the traceback shows where it hung."""

    def stop(*_: object) -> None:
        raise ImportTookTooLong(seconds)

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
