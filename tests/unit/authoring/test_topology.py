import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import DAG, DefinitionError, EmptyOperator, task


@st.composite
def graphs(draw):
    """Return a number of tasks and edges that point from lower to higher in a random order."""
    size = draw(st.integers(1, 12))
    ranks = draw(st.permutations(range(size)))
    pairs = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))
    found = draw(st.lists(pairs.filter(lambda pair: pair[0] != pair[1]), max_size=40))
    return size, {(a, b) if ranks[a] < ranks[b] else (b, a) for a, b in found}


def build(size, edges):
    with DAG("x") as made:
        tasks = [EmptyOperator(task_id=str(number)) for number in range(size)]
        for before, after in edges:
            tasks[before] >> tasks[after]
    return made


@given(graphs())
def test_specs_are_in_topological_order_with_the_edges_declared(graph):
    size, declared = graph
    spec = build(size, declared).to_spec("x.py", "hash")
    assert [task.node for task in spec.tasks] == list(range(size))
    assert all(before < task.node for task in spec.tasks for before in task.upstream)
    assert declared == {
        (int(spec.tasks[before].task_id), int(task.task_id))
        for task in spec.tasks
        for before in task.upstream
    }


@given(graphs())
def test_references_give_the_same_edges_as_arrows(graph):
    size, declared = graph
    befores = {after: sorted(b for b, a in declared if a == after) for after in range(size)}

    @task
    def step(values): ...

    order, waiting = [], set(range(size))
    while waiting:
        ready = sorted(n for n in waiting if not waiting & set(befores[n]))
        order += ready
        waiting -= set(ready)
    with DAG("x") as made:
        references = {}
        for number in order:
            call = step.override(task_id=str(number))
            references[number] = call([references[before] for before in befores[number]])
    spec = made.to_spec("x.py", "hash")
    found = {
        (int(spec.tasks[before].task_id), int(task.task_id))
        for task in spec.tasks
        for before in task.inputs
    }
    assert found == declared


@given(graphs(), st.data())
def test_any_circle_is_refused(graph, data):
    size, declared = graph
    through = data.draw(st.integers(0, size - 1))
    circle = [(through, size), (size, size + 1), (size + 1, through)]
    with pytest.raises(DefinitionError, match="cycle") as caught:
        build(size + 2, [*declared, *circle])
    names = caught.value.message.rpartition(": ")[2].split(" >> ")
    assert names[0] == names[-1]
    assert str(size) in names


def test_a_chain_of_five_thousand_tasks_compiles():
    with DAG("x") as made:
        tasks = [EmptyOperator(task_id=str(number)) for number in range(5000)]
        for before, after in zip(reversed(tasks), list(reversed(tasks))[1:], strict=False):
            before >> after
    spec = made.to_spec("x.py", "hash")
    assert [task.task_id for task in spec.tasks] == [str(n) for n in reversed(range(5000))]
