"""Attempts of Airflow's tasks, as our worker runs them: it talks to the process that runs one."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

import anyio.to_thread
import msgspec
from msgspec import Struct

from pubsubflow.airflow.outside.answers import AttemptAnswers
from pubsubflow.airflow.outside.assets import dataset_uri
from pubsubflow.airflow.outside.client import HostUnreachable, attempt_client
from pubsubflow.airflow.outside.lines import LogLines
from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.airflow.outside.waits import Resumption, wait_for
from pubsubflow.airflow.protocol import (
    RUN_TYPES,
    AirflowOrder,
    AttemptReport,
    ClientRequest,
    Deferral,
    EmittedAsset,
    TriggeringEvent,
    encode,
)
from pubsubflow.airflow.structure import AssetStructure, TaskStructure
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.errors import Fail, RetryAfter, Skip
from pubsubflow.model.runs.rules.forks import LEAVES_OUT
from pubsubflow.model.wire.messages import EmittedEvent

_DEFERRED = "deferred"
_IDS = uuid.UUID("9a2d1c52-4b53-4c5e-8d0a-7a52c1f7b1f4")


class AirflowTask(Struct, frozen=True):
    """A task of Airflow's, with what its attempts need to know.

    Attributes:
        following: Ids of the tasks right after it.
        assets: Dataset URI → the asset that its DAG names.
    """

    structure: TaskStructure
    place: BundlePlace
    following: tuple[str, ...]
    assets: Mapping[str, AssetStructure]


class _Kept(Struct, frozen=True):
    """What the journal keeps of a deferral.

    Attributes:
        attempt: The one that was deferred; 0 where that is not known.
    """

    deferral: Deferral
    pushed: dict[str, Any] = {}
    attempt: int = 0


class AttemptFailed(Exception):  # noqa: N818 - a base for the errors of Airflow's tasks
    """An attempt has failed inside; a class of its error's name derives from it."""


async def run_task(ctx: Context, task: AirflowTask) -> Any:
    """Run an attempt to its end, through all its deferrals, and return its value."""
    resumed = Resumption()
    journal = ctx._journal  # noqa: SLF001 - whether a deferral is recorded decides what runs
    if journal is None:
        raise TypeError("an attempt of Airflow's runs in an async task")
    while True:
        if journal.replaying:
            kept = msgspec.convert(await ctx.step(_DEFERRED, _not_recorded), _Kept)
            if kept.attempt not in (0, ctx.attempt):
                # A further attempt begins anew, as in Airflow: past what one before waited for.
                if journal.replaying:
                    await wait_for(ctx, task.place, kept.deferral, resumed, kept.pushed)
                resumed = Resumption()
                continue
        else:
            early = None if resumed.moment else _wait_for_date(ctx)
            report = early or await _run(ctx, task, resumed)
            if report.state != "waiting" or report.deferral is None:
                return _concluded(ctx, task, report)
            kept = _Kept(report.deferral, report.pushed, ctx.attempt)
            await ctx.step(_DEFERRED, _recorded, msgspec.to_builtins(kept, str_keys=True))
        resumed = await wait_for(ctx, task.place, kept.deferral, resumed, kept.pushed)
        if resumed.report is not None:
            return _concluded(ctx, task, resumed.report)


def _wait_for_date(ctx: Context) -> AttemptReport | None:
    """Return the wait of a run's first tasks for its date, if that is to come.

    As Airflow's scheduler waits, see `SchedulerJobRunner._schedule_dag_run`.
    """
    date = ctx.run.logical_time
    if date is None or RUN_TYPES.get(ctx.run.kind, "manual") != "manual" or date <= ctx.now():
        return None
    return AttemptReport("waiting", deferral=Deferral(until=date.timestamp()))


async def _recorded(kept: dict[str, Any]) -> dict[str, Any]:
    return kept


async def _not_recorded() -> NoReturn:
    raise TypeError("a deferral that is recorded is replayed")


async def _run(ctx: Context, task: AirflowTask, resumed: Resumption) -> AttemptReport:
    place = task.place
    order = await _order(ctx, task, resumed)
    request = ClientRequest(
        "attempt",
        place.folder,
        place.root,
        place.file,
        place.legacy,
        place.variables,
        encode(order),
    )
    lines = LogLines(ctx.log)
    answers = AttemptAnswers(ctx, task.assets)
    try:
        async with attempt_client(place.address, request, lines.write) as client:
            report = await client.exchange(answers.answer)
    except HostUnreachable as error:
        raise _error("ProcessDied", str(error), "", AttemptFailed) from None
    if not isinstance(report, AttemptReport):
        raise TypeError(f"an attempt ended with {type(report).__name__}")
    return report


async def _order(ctx: Context, task: AirflowTask, resumed: Resumption) -> AirflowOrder:
    run, index = ctx.run, ctx.task.map_index
    kind = RUN_TYPES.get(run.kind, "manual")
    events: tuple[TriggeringEvent, ...] = ()
    if kind == "asset_triggered":
        events = await anyio.to_thread.run_sync(_events, ctx, task)
    params = run.params if isinstance(run.params, dict) else msgspec.to_builtins(run.params)
    return AirflowOrder(
        dag_id=run.dag_id,
        task_id=task.structure.task_id,
        run_id=run.run_id,
        run_type=kind,
        run_after=run.created_at,
        started_at=datetime.now(UTC),
        attempt=ctx.attempt,
        max_tries=task.structure.retries,
        ti_id=instance_id(run.run_id, task.structure.task_id, index),
        tick=run.logical_time,
        conf=dict(params),
        partition=run.partition,
        events=events,
        map_index=index,
        next_method=resumed.next_method,
        next_kwargs=resumed.next_kwargs,
        moment=resumed.moment,
        looks=resumed.looks,
        first_look=resumed.first_look,
        pushed=resumed.pushed,
        answer=resumed.answer,
        ended_run=resumed.ended_run,
    )


def instance_id(run_id: str, task_id: str, map_index: int) -> str:
    """Return the id of a task instance, a UUID; the same for all of its attempts."""
    return str(uuid.uuid5(_IDS, f"{run_id}/{task_id}/{map_index}"))


def _events(ctx: Context, task: AirflowTask) -> tuple[TriggeringEvent, ...]:
    found = []
    for event in ctx.events.all:
        asset = task.assets.get(event.dataset.uri)
        name, uri = (event.dataset.uri,) * 2 if asset is None else (asset.name, asset.uri)
        found.append(
            TriggeringEvent(
                name,
                uri or name,
                event.extra,
                event.time,
                event.run_id,
                event.dag_id,
                event.task_id,
                event.partition,
                asset.name if asset is not None and asset.kind == "alias" else "",
            )
        )
    return tuple(found)


def _concluded(ctx: Context, task: AirflowTask, report: AttemptReport) -> Any:
    """Return the value of an attempt that succeeded; raise what the others end with."""
    for key, value in report.pushed.items():
        ctx.push(key, value)
    ctx.rendered.update(report.rendered)
    if report.state == "success":
        _emit(ctx, task, report)
        _follow(ctx, task, report)
        ctx.length = report.length
        return report.value
    if report.state == "skipped":
        raise Skip(report.error_message or "skipped")
    if report.retry_after is not None:
        raise RetryAfter(report.retry_after, report.error_message)
    # What has retries left and does not use them is not to be tried again.
    final = report.state == "failed" and ctx.attempt <= task.structure.retries
    kind = Fail if final else AttemptFailed
    raise _error(report.error_type, report.error_message, report.error_traceback, kind)


def _error(name: str, message: str, trace: str, kind: type[Exception]) -> Exception:
    """Return an exception of the class's name that was raised inside, with its traceback."""
    made = type(name or "AirflowError", (kind,), {})
    error: Exception = made(message.splitlines()[0] if message else name)
    if trace:
        error.add_note(trace)
    return error


def _emit(ctx: Context, task: AirflowTask, report: AttemptReport) -> None:
    for event in report.emitted:
        uri = _dataset_of(task, event)
        if event.alias:
            # What an alias stands for is known only now: `emit` takes outlets alone.
            alias = dataset_uri(AssetStructure(event.alias, kind="alias"))
            for each in (uri, alias):
                ctx.emitted.append(EmittedEvent(each, event.extra, event.partition))
        elif ctx.task.may_emit(uri):
            ctx.emit(uri, extra=event.extra, partition=event.partition)
        else:
            ctx.log.warning(
                "the event of an asset that is not an outlet is not recorded",
                asset=event.name,
                task=task.structure.task_id,
            )


def _dataset_of(task: AirflowTask, event: EmittedAsset) -> str:
    """Return the dataset of an event; an asset without a URI is known by its name."""
    for uri, asset in task.assets.items() if not event.uri else ():
        if asset.name == event.name and asset.kind != "alias":
            return uri
    return dataset_uri(AssetStructure(event.name, event.uri))


def _follow(ctx: Context, task: AirflowTask, report: AttemptReport) -> None:
    """Set which of the tasks after a branch or short circuit run."""
    role = task.structure.role
    skipped = report.skipped
    if role == "short_circuit":
        ctx.follow = () if skipped else ("all",)
    elif role == "branch":
        if set(skipped or ()) <= set(task.following):
            ctx.follow = tuple(name for name in task.following if name not in (skipped or ()))
        else:
            ctx.follow = tuple(f"{LEAVES_OUT}{name}" for name in skipped or ())
    elif skipped:
        raise Fail("it skips tasks although its operator is not a branch")
