"""How a run advances, rule by rule."""

import pytest

from pubsubflow.model.runs import progress
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import finish_task, mapped_indexes, mapped_lengths, start_run
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import TriggerRule
from pubsubflow.model.wire.messages import NOT_MAPPED
from support.specs import dag, task

STATES = {
    "s": TaskState.SUCCESS,
    "f": TaskState.FAILED,
    "k": TaskState.SKIPPED,
    "c": TaskState.CANCELLED,
    "u": TaskState.UPSTREAM_FAILED,
}


class Play:
    """One run, played by task names."""

    def __init__(self, *tasks, **options):
        self.spec = dag("d", *tasks, **options)
        self.plan = Plan(self.spec)
        self.numbers = {each.task_id: each.node for each in self.spec.tasks}
        self.waiting = set()
        self.ended = {}
        self.reasons = {}
        self.outcome = None
        self.progress, steps = start_run(self.plan)
        self._take(steps)

    def _name(self, node, map_index):
        name = self.spec.tasks[node].task_id
        return name if map_index == NOT_MAPPED else f"{name}[{map_index}]"

    def _take(self, steps):
        for node, map_index in steps.ready:
            name = self._name(node, map_index)
            assert name not in self.waiting
            assert name not in self.ended
            self.waiting.add(name)
        for node, map_index, state in steps.resolved:
            assert self._name(node, map_index) not in self.ended
            self.ended[self._name(node, map_index)] = state
        self.reasons.update(steps.mapping_errors)
        if steps.ended is not None:
            assert self.outcome is None
            assert not self.waiting
            self.outcome = steps.ended

    def finish(self, name, state="s", **result):
        self.waiting.remove(name)
        self.ended[name] = STATES[state]
        node = self.numbers[name.split("[")[0]]
        self._take(finish_task(self.plan, self.progress, node, STATES[state], **result))

    def state(self, name):
        """Return `run` while it waits for a worker, the letter of its end, or `-`."""
        if name in self.waiting:
            return "run"
        letters = {state: letter for letter, state in STATES.items()}
        return letters[self.ended[name]] if name in self.ended else "-"


RULES = {
    #                              ss     sf     sk     su     ff     fk     fu     kk
    "all_success":                "run    u      k      u      u      u      u      k",
    "all_failed":                 "k      k      k      k      run    k      run    k",
    "all_done":                   "run    run    run    run    run    run    run    run",
    "one_success":                "run    run    run    run    u      u      u      k",
    "one_failed":                 "k      run    k      run    run    run    run    k",
    "none_failed":                "run    u      run    u      u      u      u      run",
    "none_failed_min_one_success": "run    u      run    u      u      u      u      k",
    "always":                     "run    run    run    run    run    run    run    run",
    "all_skipped":                "k      k      k      k      k      k      k      run",
    "none_skipped":               "run    run    k      run    run    k      run    k",
    "one_done":                   "run    run    run    run    run    run    run    k",
    "all_done_min_one_success":   "run    run    k      run    u      k      u      k",
    "all_done_setup_success":     "run    run    run    run    run    run    run    run",
}  # fmt: skip
UPSTREAM = ["ss", "sf", "sk", "su", "ff", "fk", "fu", "kk"]


def upstream_of(letters):
    """Return tasks `x`, `y` and what makes them end so."""
    tasks = []
    for name, letter in zip("xy", letters, strict=True):
        if letter == "u":
            tasks += [task(f"{name}0"), task(name, f"{name}0")]
        else:
            tasks += [task(name)]
    return tasks


@pytest.mark.parametrize("letters", UPSTREAM)
@pytest.mark.parametrize("rule", RULES)
def test_trigger_rule(rule, letters):
    expected = RULES[rule].split()[UPSTREAM.index(letters)]
    for order in (slice(None), slice(None, None, -1)):
        play = Play(*upstream_of(letters), task("z", "x", "y", trigger_rule=TriggerRule(rule)))
        for name, letter in list(zip("xy", letters, strict=True))[order]:
            if letter == "u":
                play.finish(f"{name}0", "f")
            else:
                play.finish(name, letter)
        assert play.state("z") == expected
        if expected == "run":
            play.finish("z")
        assert play.outcome is (RunState.FAILED if play.state("z") in "fu" else RunState.SUCCESS)


def test_the_table_covers_every_rule():
    assert set(RULES) == {str(rule) for rule in TriggerRule}


@pytest.mark.parametrize("rule", ["one_success", "one_failed", "always"])
def test_eager_rules_do_not_wait_for_the_rest(rule):
    play = Play(task("x"), task("y"), task("z", "x", "y", trigger_rule=TriggerRule(rule)))
    if rule != "always":
        assert play.state("z") == "-"
        play.finish("x", "s" if rule == "one_success" else "f")
    assert play.state("z") == "run"
    play.finish("z")
    assert play.outcome is None
    play.finish("y")
    play.waiting.discard("x")


EAGER = {"one_success", "one_failed", "one_done", "always"}


@pytest.mark.parametrize("rule", sorted(set(TriggerRule) - EAGER))
def test_other_rules_wait_for_all(rule):
    play = Play(task("x"), task("y"), task("z", "x", "y", trigger_rule=rule))
    play.finish("x", "f")
    assert play.state("z") == "-"


def test_a_cancelled_task_counts_as_failed():
    play = Play(task("x"), task("y", "x"))
    play.finish("x", "c")
    assert play.state("y") == "u"
    assert play.outcome is RunState.FAILED


def test_a_failure_that_somebody_handled_does_not_fail_the_run():
    play = Play(task("x"), task("y", "x", trigger_rule=TriggerRule.ALL_DONE))
    play.finish("x", "f")
    play.finish("y")
    assert play.outcome is RunState.SUCCESS


def test_a_dag_without_tasks_has_nothing_to_end():
    play = Play()
    assert play.progress.incomplete == 0
    assert play.outcome is None


def test_empty_tasks_pass_at_once():
    play = Play(task("x", kind="empty"), task("y", "x", kind="empty"), task("z", "y"))
    assert (play.state("x"), play.state("y"), play.state("z")) == ("s", "s", "run")
    assert Play(task("x", kind="empty")).outcome is RunState.SUCCESS


def test_what_follows_a_branch_that_is_left_out_is_skipped_too():
    play = Play(
        task("b", role="branch"),
        task("left", "b"),
        task("right", "b"),
        task("after left", "left"),
        task("after right", "right"),
        task("end", "after right"),
    )
    play.finish("b", follow=["left"])
    assert [play.state(name) for name in ("left", "right", "after right", "end")] == [
        "run", "k", "k", "k"
    ]  # fmt: skip
    play.finish("left")
    play.finish("after left")
    assert play.outcome is RunState.SUCCESS


def test_the_join_after_a_branch_runs():
    rule = TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
    play = Play(
        task("b", role="branch"),
        task("left", "b"),
        task("right", "b"),
        task("join", "left", "right", trigger_rule=rule),
    )
    play.finish("b", follow=["left"])
    play.finish("left")
    assert play.state("join") == "run"


def test_a_branch_keeps_what_it_reaches_by_another_way():
    play = Play(
        task("b", role="branch"), task("left", "b"), task("join", "b", "left"), task("end", "join")
    )
    play.finish("b", follow=["left"])
    assert play.state("join") == "-"
    play.finish("left")
    assert play.state("join") == "run"


def test_a_branch_that_follows_nothing_skips_all():
    play = Play(task("b", role="branch"), task("x", "b"), task("y", "b"), task("z", "x", "y"))
    play.finish("b", follow=())
    assert [play.state(name) for name in "xyz"] == ["k", "k", "k"]
    assert play.outcome is RunState.SUCCESS


def test_a_branch_skips_whatever_the_rule_says_but_always():
    done, always = TriggerRule.ALL_DONE, TriggerRule.ALWAYS
    play = Play(
        task("b", role="branch"),
        task("x", "b", trigger_rule=done),
        task("y", "b", trigger_rule=always),
    )
    play.finish("b", follow=())
    assert (play.state("x"), play.state("y")) == ("k", "run")


def test_a_failed_branch_leaves_nothing_out():
    play = Play(task("b", role="branch"), task("x", "b"))
    play.finish("b", "f")
    assert play.state("x") == "u"


def test_a_short_circuit_skips_everything_after_it():
    done = TriggerRule.ALL_DONE
    play = Play(
        task("stop", role="short_circuit"),
        task("x", "stop"),
        task("other"),
        task("join", "x", "other", trigger_rule=done),
        task("end", "join", trigger_rule=done),
    )
    play.finish("stop", follow=())
    assert [play.state(name) for name in ("x", "join", "end")] == ["k", "-", "-"]
    play.finish("other")
    assert [play.state(name) for name in ("join", "end")] == ["k", "k"]
    assert play.outcome is RunState.SUCCESS


@pytest.mark.parametrize("order", [("stop", "b"), ("b", "stop")])
def test_what_a_branch_and_a_short_circuit_leave_out_does_not_depend_on_who_is_first(order):
    done = TriggerRule.ALL_DONE
    play = Play(
        task("stop", role="short_circuit"),
        task("b", role="branch"),
        task("x", "stop", "b"),
        task("after", "x", trigger_rule=done),
    )
    for name in order:
        play.finish(name, follow=())
    assert (play.state("x"), play.state("after")) == ("k", "k")


def test_a_short_circuit_that_lets_through_changes_nothing():
    play = Play(task("go", role="short_circuit"), task("x", "go"))
    play.finish("go")
    assert play.state("x") == "run"


@pytest.mark.parametrize("first", ["stop", "cleaner"])
def test_a_short_circuit_spares_what_always_runs_whoever_is_first(first):
    play = Play(
        task("stop", role="short_circuit"),
        task("cleaner", "stop", trigger_rule=TriggerRule.ALWAYS),
        task("report", "cleaner"),
    )
    second = "cleaner" if first == "stop" else "stop"
    for name in (first, second):
        play.finish(name, **({"follow": ()} if name == "stop" else {}))
    assert play.state("report") == "run"


def test_a_mapped_task_has_one_instance_per_element():
    play = Play(task("list"), task("each", over=["list"]), task("end", "each"))
    play.finish("list", length=3)
    assert play.waiting == {"each[0]", "each[1]", "each[2]"}
    for index in (2, 0, 1):
        assert play.state("end") == "-"
        play.finish(f"each[{index}]")
    assert play.state("end") == "run"


def test_a_large_mapped_task_makes_its_instances_as_others_end_or_wait(monkeypatch):
    monkeypatch.setattr(progress, "MAP_WINDOW", 3)
    play = Play(task("list"), task("each", over=["list"]), task("end", "each"))
    play.finish("list", length=6)
    assert play.waiting == {"each[0]", "each[1]", "each[2]"}
    play.finish("each[1]", "f")
    assert play.waiting == {"each[0]", "each[2]", "each[3]"}
    # each[0] waits, or has started
    play._take(progress.replace_queued(play.plan, play.progress, 1, 0))
    assert play.waiting == {"each[0]", "each[2]", "each[3]", "each[4]"}
    for index in (2, 3, 4, 5, 0):
        assert play.state("end") == "-"
        play.finish(f"each[{index}]")
    assert play.state("end") == "u"
    assert play.outcome is not None


def test_what_was_never_made_of_a_mapped_task_is_known_when_its_run_is_cancelled(monkeypatch):
    monkeypatch.setattr(progress, "MAP_WINDOW", 3)
    play = Play(task("list"), task("each", over=["list"]))
    play.finish("list", length=6)
    play.finish("each[0]")
    assert progress.take_unmade(play.progress) == [(1, 4), (1, 5)]
    assert progress.take_unmade(play.progress) == []


def test_a_mapped_task_over_literals_is_their_product():
    play = Play(task("each", over=[2, 3]))
    assert len(play.waiting) == 6
    sizes = mapped_lengths(play.plan, play.spec.tasks[0], play.progress)
    assert [mapped_indexes(sizes, index) for index in range(6)] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)
    ]  # fmt: skip


def test_mapping_over_nothing_skips():
    play = Play(task("list"), task("each", over=["list"]), task("end", "each"))
    play.finish("list", length=0)
    assert (play.state("each"), play.state("end")) == ("k", "k")
    assert play.outcome is RunState.SUCCESS
    assert Play(task("each", over=[3, 0])).state("each") == "k"


def test_a_product_that_is_too_long_fails_with_the_reason():
    play = Play(task("each", over=[100_000, 100_000]))
    assert (play.state("each"), play.outcome) == ("f", RunState.FAILED)
    assert "10,000,000,000 instances, and 100,000 is the most" in play.reasons[0]


def test_mapping_over_something_that_is_no_list_fails_with_the_reason():
    play = Play(task("list"), task("each", over=["list"]), task("end", "each"))
    play.finish("list", length=None)
    assert (play.state("each"), play.state("end")) == ("f", "u")
    assert play.outcome is RunState.FAILED
    assert play.reasons == {1: "it is mapped over a result that is not a list or dict (arg0)"}


def test_mapping_over_a_mapped_task_takes_the_results_of_those_that_succeeded():
    done = TriggerRule.ALL_DONE
    play = Play(task("m", over=[3]), task("each", over=["m"], trigger_rule=done))
    for index, letter in enumerate("sfs"):
        play.finish(f"m[{index}]", letter)
    assert play.waiting == {"each[0]", "each[1]"}


@pytest.mark.parametrize("letter", ["k", "f"])
def test_mapping_over_a_task_without_result_skips(letter):
    play = Play(task("x"), task("each", over=["x"], trigger_rule=TriggerRule.ALL_DONE))
    play.finish("x", letter)
    assert play.state("each") == "k"


@pytest.mark.parametrize("rule", [TriggerRule.ONE_SUCCESS, TriggerRule.ALWAYS])
def test_a_mapped_task_waits_until_its_number_is_known(rule):
    play = Play(task("x"), task("m", over=[2]), task("each", "x", over=["m"], trigger_rule=rule))
    play.finish("x")
    play.finish("m[1]")
    assert play.state("each[0]") == "-"
    play.finish("m[0]")
    assert play.state("each[0]") == play.state("each[1]") == "run"


def test_a_failed_instance_fails_its_node():
    play = Play(task("m", over=[2]), task("end", "m"))
    play.finish("m[0]", "f")
    assert play.state("end") == "-"
    play.finish("m[1]")
    assert play.state("end") == "u"


def test_a_node_whose_instances_all_skip_is_skipped():
    play = Play(task("m", over=[2]), task("end", "m"))
    play.finish("m[0]", "k")
    play.finish("m[1]", "k")
    assert play.state("end") == "k"


def test_a_teardown_does_not_decide_the_outcome():
    teardown = task("down", "work", role="teardown", trigger_rule=TriggerRule.ALL_DONE)
    play = Play(task("work"), teardown)
    play.finish("work", "f")
    assert play.state("down") == "run"
    play.finish("down")
    assert play.outcome is RunState.FAILED

    play = Play(task("work"), teardown)
    play.finish("work")
    play.finish("down", "f")
    assert play.outcome is RunState.SUCCESS
