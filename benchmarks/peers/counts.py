"""Counts: how much of each workload is measured."""

from msgspec import Struct


class Counts(Struct, frozen=True):
    """How much is measured.

    Attributes:
        name: As results have it.
        rounds: Of latencies, one at a time.
        chains, starts, bursts: Rounds of these.
        runs: Of ten tasks, in a burst.
        posts: Events from one client, and from eight.
        idle_seconds: Of the idle measurement, after a quarter of that to come to rest.
        kills: How often the peer is killed.
        kill_events, kill_rate: Events around each kill, and how many a second.
        patience_seconds: How long to wait for anything; an event that has not been worked off so
            long after the kill counts as lost.
    """

    name: str
    rounds: int
    chains: int
    starts: int
    bursts: int
    runs: int
    posts: int
    idle_seconds: float
    kills: int
    kill_events: int
    kill_rate: float
    patience_seconds: float


FULL = Counts(
    name="full",
    rounds=30,
    chains=5,
    starts=3,
    bursts=3,
    runs=50,
    posts=400,
    idle_seconds=60,
    kills=3,
    kill_events=100,
    kill_rate=10,
    patience_seconds=300,
)
QUICK = Counts(
    name="quick",
    rounds=5,
    chains=1,
    starts=1,
    bursts=1,
    runs=10,
    posts=80,
    idle_seconds=4,
    kills=1,
    kill_events=30,
    kill_rate=10,
    patience_seconds=90,
)
LEAST = Counts(
    name="least",
    rounds=2,
    chains=1,
    starts=1,
    bursts=1,
    runs=2,
    posts=8,
    idle_seconds=0.4,
    kills=1,
    kill_events=10,
    kill_rate=20,
    patience_seconds=60,
)
