"""Posts to a daemon that is killed meanwhile: each accepted event is stored exactly once."""

import random
import time
from collections import Counter
from collections.abc import Callable
from uuid import uuid4

import aiohttp
import anyio
import asyncpg
import msgspec

from support.faults.daemons import DaemonProcess
from support.faults.environment import Environment, Fault, open_environment

CLIENTS = 8
POSTS = 30
"""Posts of each client between two kills."""
DATASET = "posts://fault"
KILLED = Fault(
    (frozenset({"api", "manager"}),),
    (),
    lambda environment: environment.members[0].kill(),
    embedded=True,
)

_PATIENCE_SECONDS = 10
_PAUSE_SECONDS = 0.02
_COUNTED = """
SELECT (event.extra->>'n')::bigint AS n, count(*) AS copies
FROM event JOIN dataset ON dataset.id = dataset WHERE uri = $1 GROUP BY 1
"""


class PostsReport(msgspec.Struct, kw_only=True):
    """Result of a round.

    Attributes:
        accepted: Events that were answered by 200 or 202.
        unanswered: Posts that got no answer.
        kept: Events in Postgres.
    """

    seed: int
    kills: int
    accepted: int
    unanswered: int
    kept: int


class Posts:
    """Clients that post without a break; most try again until they are answered.

    Attributes:
        insisted: Numbers of events that were posted until they were accepted.
        tried: Numbers of those that were posted once.
        once: Those of them that were accepted.
        answers: How often each HTTP status came; 0 for none at all.
    """

    def __init__(self, member: DaemonProcess, chance: random.Random):
        self._member = member
        self._chance = chance
        self._next = 0
        self.insisted: set[int] = set()
        self.once: set[int] = set()
        self.tried: set[int] = set()
        self.answers: Counter[int] = Counter()

    @property
    def answered(self) -> int:
        return sum(self.answers.values()) - self.answers[0]

    async def post(self, on_answer: Callable[[], None]):
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            anyio.create_task_group() as group,
        ):
            for _ in range(CLIENTS):
                group.start_soon(self._client, session, on_answer)

    async def _client(self, session: aiohttp.ClientSession, on_answer: Callable[[], None]):
        for _ in range(POSTS):
            size = self._chance.choice((1, 1, 1, 20))
            numbers = range(self._next, self._next + size)
            self._next += size
            await self._chance.choice((self._by_id, self._by_key, self._only_once))(
                session, list(numbers)
            )
            on_answer()

    async def _by_id(self, session: aiohttp.ClientSession, numbers: list[int]):
        """Every event has an id of its own."""
        events = [self._event(number) | {"id": f"{number}.{uuid4()}"} for number in numbers]
        await self._insist(session, numbers, events, {})

    async def _by_key(self, session: aiohttp.ClientSession, numbers: list[int]):
        """The request has a key."""
        events = [self._event(number) for number in numbers]
        await self._insist(session, numbers, events, {"Idempotency-Key": str(uuid4())})

    async def _only_once(self, session: aiohttp.ClientSession, numbers: list[int]):
        """Neither has an id, so each is posted once."""
        self.tried.update(numbers)
        if await self._send(session, [self._event(number) for number in numbers], {}):
            self.once.update(numbers)

    async def _insist(self, session, numbers, events, headers):
        ids = None
        while ids is None:
            ids = await self._send(session, events, headers)
        self.insisted.update(numbers)
        if self._chance.random() < 0.1:
            again = await self._send(session, events, headers)
            assert again in (None, ids)

    def _event(self, number: int) -> dict:
        return {"dataset": DATASET, "extra": {"n": number}}

    async def _send(self, session, events, headers) -> list[str] | None:
        """Post; return the ids if it was accepted."""
        url = f"{self._member.url}/api/v1/datasets/events"
        try:
            async with session.post(url, json=events, headers=headers) as answer:
                body = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError):
            self.answers[0] += 1
            await anyio.sleep(_PAUSE_SECONDS)
            return None
        self.answers[answer.status] += 1
        assert answer.status in (200, 202, 503), body
        return body["ids"] if answer.status in (200, 202) else None


async def run_posts(*, kills: int, seed: int, folder) -> PostsReport:
    """Kill the daemon, its servers with it, at random moments while posts come in; check all."""
    async with open_environment(KILLED, "one", folder, seed) as environment:
        (member,) = environment.members
        posts = Posts(member, environment.chance)
        for _ in range(kills):
            await member.ready.wait()
            await kill_under_posts(environment, posts)
        await member.ready.wait()
        kept = await check_posts(environment.dsn, posts)
    return PostsReport(
        seed=seed,
        kills=kills,
        accepted=len(posts.insisted | posts.once),
        unanswered=posts.answers[0],
        kept=kept,
    )


async def kill_under_posts(environment: Environment, posts: Posts):
    """Let all clients post, and kill the daemon at a random moment in the middle of it."""
    moment = posts.answered + environment.chance.randrange(1, CLIENTS * POSTS // 2)
    reached = anyio.Event()

    def on_answer():
        if posts.answered >= moment:
            reached.set()

    async with anyio.create_task_group() as group:
        group.start_soon(posts.post, on_answer)
        await reached.wait()
        KILLED.inject(environment)
        environment.injected_at.append(time.time())


async def check_posts(dsn: str, posts: Posts) -> int:
    """Check that every accepted event is there, each once; return how many are."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(_COUNTED, DATASET)
    finally:
        await connection.close()
    kept = {row["n"] for row in rows}
    assert {row["copies"] for row in rows} == {1}, "an event is there twice"
    assert posts.insisted | posts.once <= kept, "an accepted event is lost"
    assert kept <= posts.insisted | posts.tried
    return len(kept)
