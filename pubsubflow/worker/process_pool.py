"""Runner processes of one kind: who gets which ticket, and when processes come and go."""

import asyncio
import signal
import time
from collections.abc import Callable
from functools import partial

import anyio
import anyio.abc
import structlog

from pubsubflow.model.wire.messages import NO_NODE, Outcome, TaskError, decode_result
from pubsubflow.model.wire.worker_requests import AskLease, Lease
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.protocol import RunnerSettings
from pubsubflow.worker.assignment import Ticket, Verdict
from pubsubflow.worker.manager_client import Asker, Source
from pubsubflow.worker.result_publisher import Reports
from pubsubflow.worker.runner_process import Runner, describe_exit
from pubsubflow.worker.settings import WorkerSettings
from pubsubflow.worker.timeouts import Alarm

log = structlog.get_logger(__name__)

_ASYNC_PROCESSES = 8
_ASYNC_LIFE = 10
_SLACK = 1.5
_STANDING = (Outcome.SUCCESS, Outcome.SKIPPED)
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 5.0
_TAKEN_SECONDS = 2.0


class Pool:
    """Gives tickets to runners of one kind, forks and retires them.

    Args:
        settings: The worker's.
        runner_settings: What each runner is told; says of which kind the pool is.
        fork_server: Forks them.
        group: Where they live.
        asker: Has the code of DAGs.
        reports: Takes results and output.
        hand_back: Called with a ticket that is to go back to its queue, for want of room.
        finished: Called with a ticket of which nothing is left to run.
    """

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        runner_settings: RunnerSettings,
        fork_server: ForkServer,
        group: anyio.abc.TaskGroup,
        asker: Asker,
        reports: Reports,
        hand_back: Callable[[Ticket], None],
        finished: Callable[[Ticket], None],
    ) -> None:
        self._settings = settings
        self._runner_settings = runner_settings
        self.kind = runner_settings.kind
        self._sync = self.kind == "sync"
        self._slots = 1 if self._sync else settings.async_slots
        self._limit = settings.processes if self._sync else _ASYNC_PROCESSES
        self._life = settings.recycle_tasks * (1 if self._sync else _ASYNC_LIFE)
        self._fork_server = fork_server
        self._group = group
        self._asker = asker
        self._reports = reports
        self._hand_back = hand_back
        self._finished = finished
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Ticket, Source | None] = {}
        self._runners: list[Runner] = []
        self._starting = 0
        self._pause = 0.0
        self._closing = False
        self._started: Alarm[tuple[Ticket, int]] = Alarm(settings.started_seconds, self._tell)
        self._overdue: Alarm[Ticket] = Alarm(settings.max_wait_seconds, self._give_up_waiting)

    @property
    def capacity(self) -> int:
        """How many tickets may be here at once."""
        settings = self._settings
        return settings.processes + settings.prefetch if self._sync else settings.async_slots

    @property
    def busy(self) -> int:
        """How many tickets run."""
        return sum(len(runner.tickets) for runner in self._runners)

    @property
    def waiting(self) -> int:
        """How many tickets wait for a runner."""
        return len(self._waiting)

    @property
    def runners(self) -> int:
        """How many processes there are, those included that start or end."""
        return len(self._runners)

    @property
    def slots(self) -> int:
        """How many tickets can run at once."""
        return self._limit if self._sync else self._slots

    def submit(self, ticket: Ticket) -> None:
        """Take a ticket; its code is fetched first if need be.

        One that somebody had before may be done, or be at work elsewhere: the managers know.
        """
        self._waiting[ticket] = None
        if ticket.doubtful:
            question = AskLease(*ticket.fence, self._runner_settings.worker)
            self._asker.want_lease(question, partial(self._have_lease, ticket))
        else:
            self._want_source(ticket)

    def stop(self, ticket: Ticket, verdict: Verdict) -> None:
        """End a ticket with this verdict, by force if it does not obey."""
        if ticket.verdict is not None:
            return
        ticket.verdict = verdict
        runner = ticket.runner
        if runner is None:
            self._waiting.pop(ticket, None)
            self._conclude(ticket, verdict)
            return
        grace = self._settings.grace_seconds
        if self._sync:
            runner.kill(signal.SIGTERM)
        else:
            runner.cancel(ticket)
            grace *= 2  # the runner itself gives up on a task after the first half
        self._loop.call_later(grace, self._insist, runner, ticket)

    def tend(self) -> None:
        """Retire runners that have been idle for long or hold much memory; call it regularly."""
        now, settings = self._loop.time(), self._settings
        idle = [runner for runner in self._runners if runner.free and not runner.tickets]
        idle.sort(key=lambda runner: runner.idle_since, reverse=True)
        keep = settings.warm_processes if self._sync else 1
        for place, runner in enumerate(idle):
            old = place >= keep and now - runner.idle_since > settings.idle_seconds
            if old or runner.resident_bytes() > settings.max_idle_bytes:
                runner.retire()

    def drain(self) -> None:
        """Give back what waits and let no chain go on."""
        self._closing = True
        for ticket in tuple(self._waiting):
            self._give_back(ticket)
        for runner in self._runners:
            runner.drain()

    def abandon(self) -> None:
        """Kill all runners and give back what they had."""
        self._closing = True
        for runner in self._runners:
            for ticket in tuple(runner.tickets.values()):
                self._give_back(ticket)
            runner.kill()

    def close(self) -> None:
        """Stop the timers."""
        self._started.stop()
        self._overdue.stop()

    def on_output(self, ticket: Ticket, lines: str) -> None:
        """Pass output on; called by runners."""
        self._reports.output(ticket, lines)

    def on_question(self, question: bytes, use: Callable[[bytes], None]) -> None:
        """Pass a question on; called by runners."""
        self._asker.answer(question, use)

    def on_publish(self, event: bytes, use: Callable[[bytes], None]) -> None:
        """Publish an event; called by runners."""
        self._reports.event(event, use)

    def on_result(self, ticket: Ticket, then: int, payload: bytes) -> None:
        """Report a node and go on; called by runners."""
        verdict = ticket.verdict
        if verdict is not None and decode_result(payload).outcome not in _STANDING:
            payload = ticket.result(self._runner_settings.worker, verdict)
        self._reports.result(ticket, payload)
        if then == NO_NODE:
            self._release(ticket)
            self._pump()
        else:
            ticket.advance(then)
            self._watch(ticket)

    def _have_lease(self, ticket: Ticket, lease: Lease) -> None:
        if ticket not in self._waiting:
            return  # it was cancelled or given back meanwhile
        if lease is Lease.FREE:
            self._want_source(ticket)
            return
        del self._waiting[ticket]
        if lease is Lease.VOID:
            self._reports.drop(ticket)
        else:
            self._reports.give_back(ticket, _TAKEN_SECONDS)
        self._release(ticket)

    def _want_source(self, ticket: Ticket) -> None:
        source = self._asker.source(ticket.head.source)
        if source is None:
            self._asker.want_source(ticket.head.source, partial(self._have_source, ticket))
        else:
            self._waiting[ticket] = source
            self._place(ticket)

    def _have_source(self, ticket: Ticket, source: Source) -> None:
        if ticket not in self._waiting:
            return  # it was cancelled or given back meanwhile
        if source.error is not None:
            del self._waiting[ticket]
            failure = TaskError(type="SourceMissing", message=source.error)
            self._conclude(ticket, Verdict(Outcome.FAILED, failure))
        else:
            self._waiting[ticket] = source
            self._place(ticket)

    def _place(self, ticket: Ticket) -> None:
        self._pump()
        if ticket.runner is None and self._sync:
            self._overdue.add(ticket)

    def _pump(self) -> None:
        """Give waiting tickets to free runners, and fork more runners for the rest."""
        if not self._waiting or self._closing:
            return
        left = 0
        for ticket, source in tuple(self._waiting.items()):
            if source is None:
                continue
            runner = self._choose(source)
            if runner is None:
                left += 1
                continue
            del self._waiting[ticket]
            runner.give(ticket, source)
            ticket.since = time.time()
            self._watch(ticket)
        wanted = left if self._sync else min(left, 1)
        for _ in range(wanted - self._starting):
            if len(self._runners) >= self._limit:
                self._make_room()
                break
            self._start()

    def _choose(self, source: Source) -> Runner | None:
        """Pick a runner that has the code already, or else one that can take it."""
        bundle = source.bundle
        found = None
        for runner in reversed(self._runners):
            if runner.free and bundle is not None:
                if bundle.hash in runner.sources:
                    return runner
                if found is None and runner.suits(bundle):
                    found = runner
        return found

    def _make_room(self) -> None:
        """Retire an idle runner: the ones that wait cannot use it."""
        for runner in self._runners:
            if runner.free and not runner.tickets:
                runner.retire()
                return

    def _start(self) -> None:
        runner = Runner(self._runner_settings, self._slots, self)
        self._runners.append(runner)
        self._starting += 1
        self._group.start_soon(self._keep, runner)

    async def _keep(self, runner: Runner) -> None:
        """Be with a runner from its birth to its end."""
        if self._pause:
            await anyio.sleep(self._pause)
        starting = True

        def ready() -> None:
            nonlocal starting
            starting = False
            self._starting -= 1
            runner.idle_since = self._loop.time()
            self._pump()

        code = 1
        try:
            code = await runner.live(self._fork_server, ready)
        except OSError as error:
            log.error("worker.fork_failed", error=str(error))  # noqa: TRY400 - it says it all
        finally:
            self._starting -= starting
            self._runners.remove(runner)
        self._lost(runner, code)

    def _lost(self, runner: Runner, code: int) -> None:
        """Report what ended with a runner, and see that somebody takes its place."""
        if runner.served or not code:
            self._pause = 0.0
        else:
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE_SECONDS), _MAX_PAUSE_SECONDS)
        for ticket in tuple(runner.tickets.values()):
            crash = TaskError("Crashed", describe_exit(code), runner.last_words)
            verdict = ticket.verdict or Verdict(Outcome.CRASHED, crash)
            log.warning("worker.task_ended_with_runner", **ticket.names(), exit=code)
            self._conclude(ticket, verdict)
        self._pump()

    def _watch(self, ticket: Ticket) -> None:
        """Start the clocks of the node that runs now."""
        self._started.add((ticket, ticket.node))
        if ticket.timer is not None:
            ticket.timer.cancel()
            ticket.timer = None
        seconds = ticket.timeout_seconds
        if seconds is not None:
            # An async runner sees to its timeouts itself, unless a task blocks its loop.
            slack = 0.0 if self._sync else _SLACK * self._settings.grace_seconds
            ticket.timer = self._loop.call_later(seconds + slack, self._time_out, ticket, seconds)

    def _tell(self, started: tuple[Ticket, int]) -> None:
        """Report a node as started if it still runs."""
        ticket, node = started
        if ticket.runner is not None and ticket.node == node:
            self._reports.started(ticket)

    def _time_out(self, ticket: Ticket, seconds: float) -> None:
        error = TaskError("TimeoutError", f"timed out after {seconds:g} s")
        self.stop(ticket, Verdict(Outcome.FAILED, error))
        if ticket.runner is not None and not self._sync:
            ticket.runner.kill()

    def _insist(self, runner: Runner, ticket: Ticket) -> None:
        if ticket.runner is runner:
            runner.kill()

    def _give_up_waiting(self, ticket: Ticket) -> None:
        if ticket not in self._waiting:
            return
        if self._starting:
            self._overdue.add(ticket)
        else:
            self._give_back(ticket)

    def _give_back(self, ticket: Ticket) -> None:
        self._waiting.pop(ticket, None)
        self._detach(ticket)
        self._hand_back(ticket)

    def _conclude(self, ticket: Ticket, verdict: Verdict) -> None:
        """Report an end in the runner's place."""
        self._reports.result(ticket, ticket.result(self._runner_settings.worker, verdict))
        self._release(ticket)

    def _release(self, ticket: Ticket) -> None:
        """Let go of a ticket of which nothing is left to run."""
        self._detach(ticket)
        self._finished(ticket)

    def _detach(self, ticket: Ticket) -> None:
        runner, ticket.runner = ticket.runner, None
        if ticket.timer is not None:
            ticket.timer.cancel()
        if runner is not None:
            del runner.tickets[ticket.number]
            if not runner.tickets:
                runner.idle_since = self._loop.time()
                if runner.doomed or runner.served >= self._life:
                    runner.retire()
