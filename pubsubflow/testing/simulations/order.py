"""Simulations on request: they run in a process of their own, see `child_calls.simulation`."""

import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import msgspec

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.datasets import matches, normalise_uri
from pubsubflow.model.schedule.condition_state import ConditionState
from pubsubflow.model.schedule.conditions import (
    DatasetInput,
    ScheduleSpec,
    describe_schedule,
    inputs,
)
from pubsubflow.model.schedule.explain import as_clause, still_needed
from pubsubflow.model.schedule.simulations import (
    InventedEvent,
    SimulatedOutcome,
    SimulatedRunView,
    SimulationOrder,
    SimulationReply,
    SimulationView,
    WaitingCondition,
)
from pubsubflow.model.schedule.written import python_text
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import EventInfo
from pubsubflow.runner.frames import send_frame
from pubsubflow.testing.clock import VirtualClock
from pubsubflow.testing.simulation import SimulatedRun, Simulation
from pubsubflow.testing.simulations.schedule_text import read_schedule

MOST_STEPS = 10_000
"""How many runs, ticks and deadlines one simulation has at most."""

MOST_RUNS = 1000
_MOST_OUTCOMES = 5000
_MOST_WAITING = 50
_MOST_BYTES = 1 << 20
_MEMORY_BYTES = 1 << 29
_NICE = 10
_TOO_LARGE = "it takes too much memory: simulate fewer events or partitions"
_decode = msgspec.json.Decoder(SimulationOrder).decode


def serve(sock: socket.socket, argument: bytes) -> None:
    """Simulate what an encoded order says, within its limits, and send an encoded reply."""
    order = _decode(argument)
    os.nice(_NICE)  # runs come first
    signal.setitimer(signal.ITIMER_PROF, order.cpu_seconds)  # its signal ends the process
    with suppress(ValueError, OSError):  # a lower limit is in force
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    send_frame(sock, msgspec.json.encode(reply_to(order)))


def reply_to(order: SimulationOrder) -> SimulationReply:
    """Return what an order comes to, or what is wrong with it."""
    try:
        return _fitting(carry_out(order))
    except (DefinitionError, InvalidInput) as error:
        return SimulationReply(fault=getattr(error, "message", None) or str(error))
    except MemoryError:
        return SimulationReply(fault=_TOO_LARGE)
    except RecursionError:
        return SimulationReply(fault="it is nested too deeply")


def _fitting(found: SimulationView) -> SimulationReply:
    """Return a reply that is no longer than a line may be: with fewer runs and outcomes."""
    reply = SimulationReply(found)
    while len(msgspec.json.encode(reply)) > _MOST_BYTES:
        runs = found.runs[: len(found.runs) // 2]
        more = found.more_runs + len(found.runs) - len(runs)
        outcomes = found.outcomes[: len(found.outcomes) // 2]
        waiting = found.waiting[: len(found.waiting) // 2]
        found = msgspec.structs.replace(
            found, runs=runs, more_runs=more, outcomes=outcomes, waiting=waiting
        )
        if not (runs or outcomes or waiting):
            return SimulationReply(fault="its answer is too long: simulate less")
        reply = SimulationReply(found)
    return reply


def carry_out(order: SimulationOrder) -> SimulationView:
    """Return what a schedule makes of invented events.

    Raises:
        InvalidInput: The text cannot be read as a schedule, or too much happens.
        DefinitionError: A URI or a partition key is invalid.
    """
    spec = (
        DagSpec("simulated", "", "", ()) if order.spec is None else STORED_SPEC.decode(order.spec)
    )
    schedule = spec.schedule if order.text is None else read_schedule(order.text)
    if schedule is None:
        raise InvalidInput(f"DAG {spec.dag_id!r} has no schedule: it runs only on request")
    spec = msgspec.structs.replace(spec, schedule=schedule)
    simulation = Simulation(
        spec,
        schedule,
        VirtualClock(order.since),
        timedelta(seconds=order.lasts_seconds),
        most=MOST_STEPS,
    )
    unseen = _play(simulation, order, list(inputs(schedule.condition)))
    return SimulationView(
        schedule=describe_schedule(schedule),
        python=python_text(schedule),
        datasets=list(dict.fromkeys(each.uri for each in inputs(schedule.condition))),
        since=order.since,
        until=order.until,
        runs=[_run(run) for run in simulation.runs[:MOST_RUNS]],
        more_runs=max(0, len(simulation.runs) - MOST_RUNS),
        outcomes=sorted([*unseen, *_outcomes(simulation)], key=lambda each: each.event)[
            :_MOST_OUTCOMES
        ],
        waiting=_waiting(simulation, schedule),
        next_tick=min(simulation.next_ticks().values(), default=None),
    )


def _play(
    simulation: Simulation, order: SimulationOrder, places: list[DatasetInput]
) -> list[SimulatedOutcome]:
    """Give the events in the order of their times; return those that nothing waits for."""
    unseen = []
    # Their place in the request is their name in the answer, so they keep it when they are sorted.
    for number, event in sorted(enumerate(order.events), key=lambda each: each[1].time):
        uri = normalise_uri(event.dataset)
        if not any(matches(at.uri, uri) if at.pattern else at.uri == uri for at in places):
            reason = "the schedule does not wait for it"
            unseen.append(SimulatedOutcome(event=number, outcome="unseen", reason=reason))
        elif event.time <= order.until:
            simulation.receive_event(_info(number, uri, event))
    simulation.finish(order.until)
    return unseen


def _info(number: int, uri: str, event: InventedEvent) -> EventInfo:
    return EventInfo(str(number), uri, event.extra, event.partition, event.time, "simulation")


def _run(run: SimulatedRun) -> SimulatedRunView:
    return SimulatedRunView(
        at=run.at,
        kind=run.kind,
        cause=run.cause,
        events=sorted(int(each.event_id) for each in run.events),
        partition=run.partition,
        logical_time=run.logical_time,
        params=run.params,
        refused=run.refused,
    )


def _outcomes(simulation: Simulation) -> Iterator[SimulatedOutcome]:
    for each in simulation.uow.schedule.outcomes:
        yield SimulatedOutcome(
            event=int(each.event.info.event_id),
            outcome=each.outcome,
            place=each.input,
            partition=each.condition_key or None,
            reason=each.reason,
        )
    for key, place, event in simulation.pending():
        yield SimulatedOutcome(
            event=int(event.event_id), outcome="pending", place=place, partition=key or None
        )


def _waiting(simulation: Simulation, schedule: ScheduleSpec) -> list[WaitingCondition]:
    ticks = simulation.next_ticks()
    return [
        WaitingCondition(
            partition=key or None,
            waits_for=_lacking(schedule, key, state),
            condition=as_clause(schedule.condition, state, ticks),
        )
        for key, state in simulation.waiting()[:_MOST_WAITING]
    ]


def _lacking(schedule: ScheduleSpec, key: str, state: ConditionState) -> str:
    if state.collecting_run:
        return f"a run collects events: {state.collected} so far"
    return still_needed(schedule, state, key)
