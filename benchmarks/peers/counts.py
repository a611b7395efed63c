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
        lost_seconds: An event that has not been worked off so long after the last one counts as
            lost.
        patience_seconds: How long to wait for anything else.
        workload_seconds: After which no further round of a workload begins; one counts always.
        peer_seconds: After which no further workload begins.
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
    lost_seconds: float
    patience_seconds: float
    workload_seconds: float
    peer_seconds: float


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
    lost_seconds=300,
    patience_seconds=300,
    workload_seconds=600,
    peer_seconds=7200,
)
BRIEF = Counts(
    name="brief",
    rounds=20,
    chains=3,
    starts=1,
    bursts=2,
    runs=10,
    posts=200,
    idle_seconds=8,
    kills=1,
    kill_events=50,
    kill_rate=10,
    lost_seconds=45,
    patience_seconds=75,
    workload_seconds=8,
    peer_seconds=140,
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
    lost_seconds=90,
    patience_seconds=90,
    workload_seconds=60,
    peer_seconds=1200,
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
    lost_seconds=60,
    patience_seconds=60,
    workload_seconds=60,
    peer_seconds=600,
)
COUNTS = {each.name: each for each in (FULL, BRIEF, QUICK, LEAST)}
