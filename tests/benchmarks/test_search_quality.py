"""The logic of the search benchmark, on small tables made up here: no surrogates, no peers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dialin.search.models.encoding import Encoding
from dialin.specification import parse_spec
from tests.benchmarks import search_quality
from tests.benchmarks.curves import conditional, lcbench, tasks
from tests.benchmarks.search_quality import Run, Setting
from tests.benchmarks.searchers.base import Asked, Problem, existing
from tests.benchmarks.simulation import Course, simulate

CONDITIONAL = """
name: benchmark
objective: {python: /conditional.py:train, metric: accuracy}
space:
  learner: {choices: [tree, svm, linear]}
  depth: {min: 1, max: 30, when: {learner: [tree]}}
  cost: {min: 1e-3, max: 1e3, log: true, when: {learner: [svm, linear]}}
  degree: {min: 2, max: 200, log: true, when: {learner: [svm]}}
  share: {min: 0.0, max: 1.0}
"""


class Line:
    """A table of one knob x: the value is x times the fraction of the training, an epoch takes `seconds`."""

    def __init__(self, epochs: int = 4, seconds: float = 1.0) -> None:
        self._epochs, self._seconds = epochs, seconds

    def curves(self, configurations: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        x = np.array([params["x"] for params in configurations])[:, None]
        steps = np.arange(1, self._epochs + 1)
        return x * steps / self._epochs, np.tile(steps * self._seconds, (len(x), 1))


class InTurn:
    """Asks for x = 0.1, 0.2 and so on up to 1, each trained to its end."""

    def __init__(self) -> None:
        self.count = 0

    def ask(self) -> Asked:
        self.count += 1
        return Asked(self.count, {"x": min(1.0, self.count / 10)})

    def report(self, key: int, epoch: int, value: float) -> bool:
        return False


def a_task(epochs: int = 4, seconds: float = 1.0, a_training: float = 4.0) -> tasks.Task:
    spec = parse_spec("name: b\nobjective: {python: /a.py:f}\nspace: {x: {min: 0.0, max: 1.0}}\n")
    return tasks.Task(Problem(spec, epochs), Line(epochs, seconds), worst=0.5, best=1.0, seconds=a_training)


def test_regret_is_0_at_the_best_known_and_1_at_the_worst_and_is_read_at_each_mark() -> None:
    course = simulate(a_task(), InTurn(), marks=(5, 10), clocks=("epochs",), workers=1)
    assert course.by_epochs == pytest.approx([1.0, 0.0])
    assert course.by_seconds == []
    assert course.trials == 11  # the last is asked for when the worker is free, and not trained


def test_seconds_have_marks_of_their_own() -> None:
    course = simulate(a_task(a_training=2.0), InTurn(), marks=(5, 10), clocks=("epochs", "seconds"), workers=1)
    # Ten seconds end in the second epoch of the third trial, whose best is not yet that of the second.
    assert course.by_seconds == pytest.approx([(1 - 0.2) / 0.5, (1 - 0.5) / 0.5])
    assert course.by_epochs == pytest.approx([1.0, 0.0])
    assert course.unreached == 0


def test_a_search_of_cheap_configurations_ends_at_twice_the_epochs_and_says_which_columns_it_has_not_reached() -> None:
    searcher = InTurn()
    course = simulate(a_task(seconds=0.001), searcher, marks=(2, 5), clocks=("epochs", "seconds"), workers=1)
    assert searcher.count == 11
    assert course.by_epochs == pytest.approx([1.6, 1.0])
    assert course.by_seconds == pytest.approx([0.0, 0.0])
    assert course.unreached == 2


def test_the_columns_by_epochs_do_not_depend_on_the_clock_of_seconds() -> None:
    alone = simulate(a_task(seconds=0.001), InTurn(), (2, 5), ("epochs",), workers=3)
    beside = simulate(a_task(seconds=0.001), InTurn(), (2, 5), ("epochs", "seconds"), workers=3)
    assert alone.by_epochs == beside.by_epochs


class Idle:
    def ask(self) -> None:
        return None


def test_a_searcher_with_nothing_to_do_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="nothing to do"):
        simulate(a_task(), Idle(), (2,), ("epochs",), workers=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(("quantile", "worst"), [(0.0, 0.0), (0.5, 0.5)])
def test_regret_1_is_the_worst_or_the_median_of_random_configurations(quantile: float, worst: float) -> None:
    module = SimpleNamespace(load=lambda task: Line(), WORST=quantile, CLIMBS=8, MOVED=(0.5,))
    found, best, seconds = tasks._known(a_task().problem.spec, module, "any")
    assert found == pytest.approx(worst, abs=0.02)
    assert best == pytest.approx(1.0, abs=1e-3)
    assert seconds == pytest.approx(4.0)


def test_the_tables_measure_in_the_units_that_they_state() -> None:
    assert (lcbench.WORST, lcbench.MARKS, lcbench.CLOCKS) == (0.0, (5, 10, 20, 50), ("epochs", "seconds"))
    assert (conditional.WORST, conditional.MARKS, conditional.CLOCKS) == (0.5, (3, 6, 10, 20), ("epochs",))


@pytest.mark.parametrize("module", [lcbench, conditional])
def test_no_task_to_judge_by_is_one_to_develop_on(module: Any) -> None:
    assert not set(module.TASKS) & set(module.JUDGING)
    assert len(set(module.JUDGING)) == len(module.JUDGING)


def test_configurations_at_points_are_those_of_the_encoding() -> None:
    spec = parse_spec(CONDITIONAL)
    encoding, points = Encoding(spec), np.random.default_rng(0).random((300, 5))
    configurations = tasks.configurations_at(spec, points)
    assert configurations == [encoding.decode(point) for point in points]
    assert {frozenset(params) for params in configurations} == {
        frozenset({"learner", "depth", "share"}),
        frozenset({"learner", "cost", "share"}),
        frozenset({"learner", "cost", "degree", "share"}),
    }


def test_a_search_without_conditions_trains_only_what_exists() -> None:
    flat = {"learner": "linear", "depth": 3, "cost": 1.0, "degree": 5, "share": 0.5}
    assert existing(Problem(parse_spec(CONDITIONAL), 4), flat) == {"learner": "linear", "cost": 1.0, "share": 0.5}


# The first configuration is best on the data set "own", the second on the others; the last two are the worst there.
ON = {
    "own": [9.0, 1.0, 3.0, 2.0, 5.0, 6.0, 7.0, 8.0],
    "other": [6.0, 9.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0],
    "third": [5.0, 9.0, 6.0, 4.0, 3.0, 2.0, 0.0, 1.0],
}
CONFIGURATIONS = [
    {"learner": "tree", "depth": 1},
    {"learner": "svm", "cost": 2.0},
    {"learner": "tree", "depth": 3},
    {"learner": "svm", "cost": 4.0},
    {"learner": "tree", "depth": 5},
    {"learner": "linear", "alpha": 6.0},
    {"learner": "tree", "depth": 7},
    {"learner": "tree", "depth": 8},
]


@pytest.fixture
def three_data_sets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A scenario of three data sets; the list of those whose values were looked up."""
    looked_up: list[str] = []

    class Fake:
        def __init__(self, task: str) -> None:
            self._name = task.split(":")[1]

        def inputs(self, configurations: Sequence[Any], fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros(1), np.zeros(1)

        def finals(self, choices: np.ndarray, numbers: np.ndarray) -> np.ndarray:
            looked_up.append(self._name)
            return np.array(ON[self._name])

    monkeypatch.setattr(conditional, "Conditional", Fake)
    monkeypatch.setattr(conditional, "_codes", lambda scenario: list(ON))
    return looked_up


def test_a_good_prior_is_the_best_on_the_other_data_sets_with_the_best_of_each_other_learner(
    three_data_sets: list[str],
) -> None:
    centres = conditional.centres("rbv2_super:own", "good", 0, CONFIGURATIONS)
    assert three_data_sets == ["other", "third"]
    # The two trees are level on the others: either is the best tree. Only "own" would tell them apart.
    assert centres.pop("depth") in (1, 3)
    assert centres == {"learner": "svm", "cost": 2.0, "alpha": 6.0}


def test_a_bad_prior_is_of_the_lowest_quarter_on_the_other_data_sets(three_data_sets: list[str]) -> None:
    found = [conditional.centres("rbv2_super:own", "bad", seed, CONFIGURATIONS) for seed in range(8)]
    assert "own" not in three_data_sets
    assert {centres["depth"] for centres in found} == {7, 8}  # the seed says which of them
    assert all(centres["learner"] == "tree" for centres in found)
    assert all(centres["cost"] == 4.0 for centres in found)  # no svm is there: the worst one


def test_the_space_of_a_scenario_is_one_of_dialins_with_its_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {
        "hyperparameters": [
            {"name": "learner", "type": "categorical", "choices": ["ranger", "svm"]},
            {"name": "trainsize", "type": "uniform_float", "lower": 0.1, "upper": 1.0, "log": False},
            {"name": "task_id", "type": "categorical", "choices": ["1", "2"]},
            {"name": "ranger.replace", "type": "categorical", "choices": ["TRUE", "FALSE"]},
            {"name": "ranger.splits", "type": "uniform_int", "lower": 1, "upper": 100, "log": False},
            {"name": "svm.cost", "type": "uniform_float", "lower": 4.5e-05, "upper": 22026.4, "log": True},
        ],
        "conditions": [
            {"child": "ranger.replace", "parent": "learner", "type": "EQ", "value": "ranger"},
            {"child": "svm.cost", "parent": "learner", "type": "IN", "values": ["svm"]},
            {
                "child": "ranger.splits",
                "conditions": [
                    {"child": "ranger.splits", "parent": "ranger.replace", "type": "EQ", "value": "TRUE"},
                    {"child": "ranger.splits", "parent": "learner", "type": "EQ", "value": "ranger"},
                ],
            },
        ],
    }
    monkeypatch.setattr(conditional, "_read", lambda scenario, file: raw)
    conditional._knobs.cache_clear()
    try:
        text = conditional.space("iaml_super:1489")
    finally:
        conditional._knobs.cache_clear()
    spec = parse_spec(f"name: b\nobjective: {conditional.OBJECTIVE}\nspace:{text}")
    assert list(spec.space) == ["learner", "ranger_replace", "ranger_splits", "svm_cost"]
    assert spec.space["ranger_replace"].values == ("TRUE", "FALSE")  # type: ignore[union-attr]
    assert spec.space["ranger_splits"].when == {"ranger_replace": ("TRUE",), "learner": ("ranger",)}
    assert spec.space["svm_cost"].log  # type: ignore[union-attr]


def course(*regrets: float) -> Course:
    return Course(list(regrets), [], 0, trials=10, ask_seconds=0.1)


def test_ranks_are_within_a_task_and_a_seed_and_ties_share() -> None:
    courses = {
        Run("a", "first", 0): course(0.9, 0.1),
        Run("a", "second", 0): course(0.1, 0.2),
        Run("b", "first", 0): course(0.5, 0.3),
        Run("b", "second", 0): course(0.5, 0.3),
    }
    assert search_quality.ranks(courses) == {"first": 1.25, "second": 1.75}


def test_the_standard_error_is_over_seeds() -> None:
    courses = {Run(task, "one", seed): course(seed + 0.1 * (task == "b")) for task in "ab" for seed in range(3)}
    row = search_quality.summarize(courses)["by_epochs"]
    assert row["mean"] == pytest.approx([1.05])
    assert row["standard_error"] == pytest.approx([1 / np.sqrt(3)])
    assert row["by_task"] == {"a": pytest.approx([1.0]), "b": pytest.approx([1.1])}


SETTING = Setting("conditional", "good", (3, 6), 8)


def test_files_are_joined_on_the_tasks_and_seeds_that_all_searches_have(tmp_path: Path) -> None:
    search_quality._write(
        tmp_path / "a.json", SETTING, {Run("a", "one", 0): course(0.5, 0.4), Run("b", "one", 0): course(0.1, 0.1)}
    )
    search_quality._write(tmp_path / "b.json", SETTING, {Run("a", "two", 0): course(0.6, 0.2)})
    setting, courses = search_quality.joined([tmp_path / "a.json", tmp_path / "b.json"])
    assert setting == SETTING
    assert list(courses) == [Run("a", "one", 0), Run("a", "two", 0)]
    text = search_quality.text_of(setting, courses)
    assert text.index("| two |") < text.index("| one |")


def test_a_joined_search_with_another_prior_has_it_in_its_name(tmp_path: Path) -> None:
    run = Run("a", "one", 0)
    search_quality._write(tmp_path / "good.json", SETTING, {run: course(0.5, 0.4)})
    search_quality._write(tmp_path / "bad.json", SETTING._replace(prior="bad"), {run: course(0.6, 0.5)})
    _, courses = search_quality.joined([tmp_path / "good.json", tmp_path / "bad.json"])
    assert list(courses) == [run, run._replace(search="one, prior: bad")]


def test_files_of_another_setting_are_refused(tmp_path: Path) -> None:
    search_quality._write(tmp_path / "a.json", SETTING, {Run("a", "one", 0): course(0.5, 0.4)})
    with pytest.raises(SystemExit, match="prior='bad'"):
        search_quality._read(tmp_path / "a.json", SETTING._replace(prior="bad"))


def test_what_a_file_holds_is_not_simulated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Run] = []

    def simulated(setting: Setting, run: Run) -> Course:
        ran.append(run)
        return course(0.5, 0.4, 0.3, 0.2)

    monkeypatch.setattr(search_quality, "_simulated", simulated)
    monkeypatch.setattr(search_quality, "searchers", lambda wanted, modules: ({"one": None}, []))
    file = tmp_path / "a.json"
    command = ["search_quality.py", "--table", "conditional", "--tasks", "fair_super:31", "--processes", "1"]
    for seeds in ("1", "3"):
        monkeypatch.setattr("sys.argv", [*command, "--json", str(file), "--seeds", seeds])
        search_quality.main()
    assert [run.seed for run in ran] == [0, 1, 2]
    assert len(json.loads(file.read_text())["courses"]) == 3
