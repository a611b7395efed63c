"""The simulation of docs/scale.md: what can be worked out by hand comes out of it."""

import pytest

from benchmarks.scale import MOST, Costs, Plant, simulate

FREE = Costs(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0)


def test_one_manager_does_a_batch_after_the_other():
    done = simulate(Plant(1, dags=1, costs=FREE)).events
    assert done == pytest.approx(MOST / 2 / 0.010, rel=0.02)


def test_managers_that_meet_on_a_dag_take_turns():
    alone = simulate(Plant(1, dags=1, costs=FREE))
    together = simulate(Plant(4, dags=1, costs=FREE))
    assert together.events == pytest.approx(alone.events, rel=0.05)
    assert together.waiting > 0.7


def test_managers_with_dags_of_their_own_do_not_meet():
    apart = simulate(Plant(4, dags=4, costs=FREE, partitioned=True))
    assert apart.events == pytest.approx(4 * MOST / 2 / 0.010, rel=0.02)
    assert apart.waiting == 0


def test_the_cores_of_postgres_are_the_limit_that_they_should_be():
    costs = Costs(0.0, 0.0, 0.0, 10.0, 0.0, 0.0, 0.0)
    found = simulate(Plant(8, cores=2, costs=costs, partitioned=True))
    assert found.events == pytest.approx(2 * MOST / 2 / 0.010, rel=0.05)
    assert found.postgres == pytest.approx(1, rel=0.05)


def test_what_is_offered_is_done():
    found = simulate(Plant(4, events=2_000, partitioned=True))
    assert found.events == pytest.approx(2_000, rel=0.1)
    assert 0 < found.p50 < found.p99
