"""Simulation of many managers on one Postgres: discrete events, with costs measured on one machine.

`python -m benchmarks.scale` prints the tables of docs/scale.md. Each manager takes what has
gathered, 500 at most, computes, and then has one transaction: it waits for the rows of its DAGs,
which other managers may hold, and for a core of Postgres. What is simulated is the way from an
event to the order of its task and from the result on; workers, networks and disks are as fast as
they need to be.
"""

import random
import sys
from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.figures import spread

MOST = 500
"""Messages of a batch at most."""


class Costs(Struct, frozen=True):
    """CPU times in milliseconds, of a batch and of each message in it.

    Measured on cores of the README's figures: a batch of one, batches of 100 events, and no-op
    tasks by the thousand. `commit` is how long a commit waits for the disk, or for a standby.
    """

    manager_batch: float = 0.9
    manager_event: float = 0.040
    manager_result: float = 0.130
    postgres_batch: float = 0.4
    postgres_event: float = 0.014
    postgres_result: float = 0.025
    commit: float = 0.2


class Plant(Struct, frozen=True):
    """What is simulated.

    Attributes:
        managers: Daemons with the role manager.
        cores: Cores of Postgres.
        dags: DAGs; an event starts one run of one of them.
        hot: Share of all events that goes to one DAG.
        partitioned: Whether the messages of a DAG always go to the same manager.
        events: Events a second; each brings a result, too. 0 for a backlog that never ends.
        seconds: Time that is simulated.
    """

    managers: int
    cores: int = 16
    dags: int = 1_000_000
    hot: float = 0.0
    partitioned: bool = False
    events: float = 0.0
    seconds: float = 1.0
    costs: Costs = Costs()
    seed: int = 1


class Outcome(Struct, frozen=True):
    """Result of a simulation.

    Attributes:
        events: Events a second that were done.
        p50: Milliseconds from the arrival of a message to its commit; 0 for an endless backlog.
        p99: The same.
        postgres: Share of Postgres' cores that was busy.
        waiting: Share of the managers' time in which they waited for rows of others.
    """

    events: float
    p50: float
    p99: float
    postgres: float
    waiting: float


class _Queue:
    """Messages of one queue, by arrival, in seconds."""

    def __init__(self, rate: float, chance: random.Random) -> None:
        self._rate, self._chance = rate, chance
        self._next = chance.expovariate(rate) if rate else 0.0

    def take(self, now: float) -> tuple[float, list[float]]:
        """Return when a batch can begin, and when its messages arrived."""
        if not self._rate:
            return now, [now] * MOST
        begin = max(now, self._next)
        found: list[float] = []
        while self._next <= begin and len(found) < MOST:
            found.append(self._next)
            self._next += self._chance.expovariate(self._rate)
        return begin, found


def simulate(plant: Plant) -> Outcome:
    """Run a simulation."""
    costs, chance = plant.costs, random.Random(plant.seed)
    queues = _queues(plant, chance)
    cores, held = [0.0] * plant.cores, dict[int, float]()
    ready = [(0.0, number) for number in range(plant.managers)]
    heapify(ready)
    busy = waited = 0.0
    done, ages = 0, list[float]()
    while ready:
        now, manager = heappop(ready)
        begin, arrivals = queues[manager % len(queues)].take(now)
        if begin >= plant.seconds:
            continue
        results = (len(arrivals) + chance.randrange(2)) // 2
        events = len(arrivals) - results
        computed = begin + 1e-3 * (
            costs.manager_batch + events * costs.manager_event + results * costs.manager_result
        )
        rows = set(_dags(plant, manager, len(arrivals), chance))
        locked = max(computed, max((held.get(row, 0.0) for row in rows), default=0.0))
        start = max(locked, cores[0])
        worked = 1e-3 * (
            costs.postgres_batch + events * costs.postgres_event + results * costs.postgres_result
        )
        heapreplace(cores, start + worked)
        end = start + worked + 1e-3 * costs.commit
        held.update(dict.fromkeys(rows, end))
        busy, waited = busy + worked, waited + max(0.0, min(locked, plant.seconds) - computed)
        done += events
        ages.extend(1e3 * (end - each) for each in arrivals[:: max(1, len(arrivals) // 4)])
        heappush(ready, (end, manager))
    age = spread(ages, 1) if plant.events and ages else {"p50": 0.0, "p99": 0.0}
    total = plant.seconds
    return Outcome(
        done / total,
        age["p50"],
        age["p99"],
        min(1.0, busy / total / plant.cores),
        waited / total / plant.managers,
    )


def _queues(plant: Plant, chance: random.Random) -> list[_Queue]:
    rate = 2 * plant.events
    if not plant.partitioned:
        return [_Queue(rate, chance)]
    return [_Queue(rate / plant.managers, chance) for _ in range(plant.managers)]


def _dags(plant: Plant, manager: int, number: int, chance: random.Random) -> Iterator[int]:
    """Yield the DAGs of a batch; those of a partition are its own alone."""
    for _ in range(number):
        if plant.hot and chance.random() < plant.hot:
            yield manager if plant.partitioned else 0
        elif plant.partitioned:
            yield manager + plant.managers * int(chance.random() * plant.dags / plant.managers)
        else:
            yield int(chance.random() * plant.dags)


def main() -> None:
    """Print the tables."""
    numbers = count(1)
    for title, plants in (
        ("As many as there are managers, one Postgres of 16 cores", _growth()),
        ("Partitions by DAG, one Postgres of 16 and of 64 cores", _partitions()),
        ("Shards by DAG of 25,000 events a second each", _shards()),
    ):
        sys.stdout.write(f"\n{next(numbers)}. {title}\n\n")
        sys.stdout.write(
            "| | events/s | p50, p99 ms | Postgres | waits for rows |\n|---|---|---|---|---|\n"
        )
        for name, plant in plants:
            found = simulate(plant)
            age = f"{found.p50:g}, {found.p99:g}" if plant.events else ""
            shares = f"{found.postgres:.0%} | {found.waiting:.0%}"
            sys.stdout.write(f"| {name} | {found.events:,.0f} | {age} | {shares} |\n")


def _growth() -> Iterator[tuple[str, Plant]]:
    for managers in (1, 2, 4, 10, 30, 100):
        plant = Plant(managers)
        yield f"{managers} manager{'s' * (managers > 1)}, 1,000,000 DAGs", plant
    for managers in (4, 100):
        yield f"{managers} managers, 10,000 DAGs", Plant(managers, dags=10_000)
    yield "10 managers, a tenth of all events to one DAG", Plant(10, hot=0.1)
    for rate in (25_000, 50_000, 100_000):
        yield f"100 managers, {rate:,} events/s offered", Plant(100, events=rate)


def _partitions() -> Iterator[tuple[str, Plant]]:
    for managers, cores, dags in ((10, 16, 10_000), (100, 16, 1_000_000), (100, 64, 1_000_000)):
        plant = Plant(managers, cores=cores, dags=dags, partitioned=True)
        yield f"{managers} managers, {cores} cores, {dags:,} DAGs", plant
    for rate in (10_000, 50_000, 100_000):
        plant = Plant(100, cores=64, partitioned=True, events=rate)
        yield f"100 managers, 64 cores, {rate:,} events/s offered", plant


def _shards() -> Iterator[tuple[str, Plant]]:
    one = Plant(25, dags=250_000, partitioned=True, events=25_000)
    yield "25 managers, 16 cores, 250,000 DAGs", one
    yield "the same, 2 ms to a standby", replace(one, costs=Costs(commit=2.0))


if __name__ == "__main__":
    main()
