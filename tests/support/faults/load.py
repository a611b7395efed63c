"""Load of events: posted over HTTP until they are accepted, some of them once more."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import count
from uuid import uuid4

import aiohttp
import anyio
import msgspec

from support.faults.daemons import DaemonProcess

SHARES = {"row/in": 40, "line/in": 20, "split/in": 45, "spread/in": 15, "shaky/in": 15}
"""Events of one load; each makes a run, those of `split/in` two more and a share of `meet`."""

RUNS = 225
"""Runs that one load makes at least."""

EXECUTIONS = 400
"""Executions that one load makes at least: moments are chosen below that."""

_PATIENCE_SECONDS = 10
_PAUSE_SECONDS = 0.02
_STEADY_SECONDS = 0.1
_AGAIN = 0.1


class Event(msgspec.Struct, frozen=True):
    """An event as it is posted."""

    dataset: str
    id: str
    extra: dict[str, int]


class Load:
    """Posts events to daemons that may be away.

    Args:
        members: The daemons; may change meanwhile.
        chance: Of every choice.
        part: How large a load is, of the whole one.
        patience_seconds: After how long without an answer a post is sent to another daemon.
        token: Of the API, if it is not on loopback.

    Attributes:
        runs: Runs that one load makes at least.
        executions: Likewise for executions: moments are chosen below that.
        forgotten: The store may have lost what was accepted: another id is right then.
        ids: Idempotency id → the event's id as the API answered it.
        events: Idempotency id → the event.
        answers: How often each HTTP status came; 0 for none at all.
        refusals: Statuses and headers of answers that refused a post.
    """

    def __init__(
        self,
        members: Sequence[DaemonProcess],
        chance: random.Random,
        *,
        part: float = 1.0,
        patience_seconds: float = _PATIENCE_SECONDS,
        token: str = "",
    ):
        self._patience_seconds = patience_seconds
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._part = part
        self.runs, self.executions = (int(part * least) for least in (RUNS, EXECUTIONS))
        self._members = members
        self._chance = chance
        self._numbers = count(1)
        self.forgotten = False
        self.ids: dict[str, str] = {}
        self.events: dict[str, Event] = {}
        self.answers: Counter[int] = Counter()
        self.refusals: list[tuple[int, str | None]] = []

    async def post(self):
        """Post one load, in batches, by two clients side by side."""
        names = [name for name, share in SHARES.items() for _ in range(round(share * self._part))]
        self._chance.shuffle(names)
        batches = []
        while names:
            size = self._chance.randint(1, 9)
            batches.append([self._event(name) for name in names[:size]])
            del names[:size]
        async with (
            self._session() as session,
            anyio.create_task_group() as group,
        ):
            for _ in range(2):
                group.start_soon(self._post_batches, session, batches)

    async def post_steadily(self, seconds: float):
        """Post an event after the other for a while, so that each run has its own moment."""
        end = anyio.current_time() + seconds
        async with self._session() as session:
            while anyio.current_time() < end:
                name = self._chance.choice(("row/in", "line/in", "spread/in"))
                await self._insist(session, [self._event(name)])
                await anyio.sleep(_STEADY_SECONDS)

    async def post_again(self):
        """Post all events again, as clients do who keep what they have sent."""
        batches = [[event] for event in self.events.values()]
        async with (
            self._session() as session,
            anyio.create_task_group() as group,
        ):
            for _ in range(2):
                group.start_soon(self._post_batches, session, batches)

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=self._patience_seconds)
        return aiohttp.ClientSession(timeout=timeout, headers=self._headers)

    def _event(self, name: str) -> Event:
        number = next(self._numbers)
        event = Event(f"fault://{name}", f"{number}.{uuid4()}", {"n": number})
        self.events[event.id] = event
        return event

    async def _post_batches(self, session, batches):
        while batches:
            batch = batches.pop()
            await self._insist(session, batch)
            if self._chance.random() < _AGAIN:
                await self._insist(session, batch)

    async def _insist(self, session, batch):
        """Post a batch until it is accepted; its ids must be those it got before."""
        while True:
            member = self._chance.choice(self._members)
            if member.url and await self._try(session, member.url, batch):
                return
            await anyio.sleep(_PAUSE_SECONDS)

    async def _try(self, session, url, batch) -> bool:
        try:
            async with session.post(
                f"{url}/api/v1/datasets/events", data=msgspec.json.encode(batch)
            ) as answer:
                body = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError):
            self.answers[0] += 1
            return False
        self.answers[answer.status] += 1
        if answer.status not in (200, 202):
            self.refusals.append((answer.status, answer.headers.get("Retry-After")))
            return False
        for event, event_id in zip(batch, body["ids"], strict=True):
            known = self.ids.setdefault(event.id, event_id)
            assert self.forgotten or known == event_id
            self.ids[event.id] = event_id
        return True
