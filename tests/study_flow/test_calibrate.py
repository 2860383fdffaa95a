"""Range tests of a whole space: which are run, what the search makes of them."""

from __future__ import annotations

import math

import optuna
import pytest

from dialin.lifecycle import TrialState
from dialin.search.decision import Decision
from dialin.search.study import Study
from dialin.specification.range_tests import Curve
from dialin.study_flow.calibrate import MOST_COMBINATIONS, calibrate, combinations_of
from tests.factories import make_plan
from tests.planning.test_range_test_reading import made

SPACE = """
  optimizer: [sgd, adam]
  batch_size: {min: 16, max: 256, log: true}
  momentum: {min: 0.5, max: 0.9, when: {optimizer: sgd}}
  lr: {range_test: {per: [optimizer, batch_size], seeds: 2}}
"""


def fake_tests(jobs, sweep):
    """sgd's curve lies two decades above adam's; at batch size 256 nothing can be seen."""
    shift = {"sgd": 0.0, "adam": -2.0}
    return [
        made(-3 + shift[p["optimizer"]], -1 + shift[p["optimizer"]], shift[p["optimizer"]],
             height=0.01 if p["batch_size"] == 256 else 0.8)
        for p, _ in jobs
    ]  # fmt: skip


@pytest.fixture
def plan(tmp_path):
    plan = make_plan("budget.trials=40", "early_stopping=off", space=SPACE)
    return calibrate(plan, fake_tests, lambda params, steps: steps / 1000, tmp_path / "calibration.json")


def test_every_combination_is_tested_with_every_seed():
    seen = []
    plan = make_plan(space=SPACE)
    combinations, warnings = combinations_of(plan.spec, plan.spec.space["lr"])
    assert combinations == [{"optimizer": o, "batch_size": b} for o in ("sgd", "adam") for b in (16, 64, 256)]
    assert warnings == []

    def run(jobs, sweep):
        seen.extend(jobs)
        return fake_tests(jobs, sweep)

    from dialin.study_flow.calibrate import _calibrate

    calibration = _calibrate(plan, plan.spec.space["lr"], run, lambda params, steps: 1.0)
    assert len(seen) == 12
    assert len({seed for _, seed in seen}) == 2
    assert [("momentum" in params) for params, _ in seen] == [True] * 6 + [False] * 6
    assert calibration.epochs == 12.0


@pytest.mark.parametrize(("cost_of_a_step", "steps"), [(0.015, 100), (1.0, 40), (1e-6, 200)])
def test_a_test_takes_as_many_steps_as_a_twentieth_of_the_study_pays_for(tmp_path, cost_of_a_step, steps):
    plan = make_plan("budget.trials=40", "budget.epochs=9", space=SPACE)
    asked = []

    def run(jobs, sweep):
        asked.append(sweep.steps)
        return fake_tests(jobs, sweep)

    calibrate(plan, run, lambda params, steps: steps * cost_of_a_step, tmp_path / "calibration.json")
    assert asked == [steps]


def test_low_confidence_falls_back_with_a_warning(plan):
    by_combination = {tuple(b.combination.values()): b for b in plan.calibration.bounds}
    low, high = (math.log10(value) for value in (by_combination["sgd", 64].low, by_combination["sgd", 64].high))
    assert (low, high) == (pytest.approx(-2.8, abs=0.1), pytest.approx(0.1, abs=0.1))
    assert (by_combination["sgd", 256].low, by_combination["sgd", 256].high) == (1e-4, 1.0)
    assert len(plan.calibration.warnings) == 2
    assert "optimizer sgd, batch_size 256: the curve is flat" in plan.calibration.warnings[0]


def test_too_many_combinations_are_capped_with_a_warning():
    space = SPACE.replace("per: [optimizer, batch_size]", "per: [optimizer, batch_size, normalization, activation]")
    plan = make_plan(space=space + "  normalization: [none, batch, group]\n  activation: [relu, tanh]\n")
    combinations, warnings = combinations_of(plan.spec, plan.spec.space["lr"])
    assert len(combinations) == MOST_COMBINATIONS
    assert warnings[0].startswith("range tests were run for 24 of 36 combinations")


def test_what_was_found_is_read_again_and_not_measured_again(plan, tmp_path):
    def never(jobs, sweep):
        pytest.fail("measured again")

    fresh = make_plan("budget.trials=40", "early_stopping=off", space=SPACE)
    again = calibrate(fresh, never, lambda params, steps: 0.0, tmp_path / "calibration.json")
    assert again.calibration == plan.calibration


def test_the_search_keeps_to_the_bounds_of_each_combination(plan):
    storage = optuna.storages.InMemoryStorage()
    study = Study.open(plan, storage, "s")
    for _ in range(40):
        trial = study.ask()
        bounds = plan.calibration.bounds_for(trial.params)
        assert bounds.low <= trial.params["lr"] <= bounds.high
        study.report(trial, 1, -abs(math.log10(trial.params["lr"] / bounds.low) - 1))
        study.tell(trial, Decision.of_state(TrialState.COMPLETE))
    rows = storage.get_all_trials(storage.get_study_id_from_name("s"))
    assert all("lr_share" in row.params and "lr" not in row.params for row in rows)
    records = study.trials()
    for record, row in zip(records, rows, strict=True):
        bounds = plan.calibration.bounds_for(record.params)
        assert row.params["lr_share"] == pytest.approx(
            math.log(record.params["lr"] / bounds.low) / math.log(bounds.high / bounds.low)
        )
    again = Study.open(plan, storage, "s")
    assert again.trials() == records


def test_a_search_without_its_range_tests_is_refused():
    with pytest.raises(ValueError, match="the plan has no calibration"):
        Study.open(make_plan(space=SPACE), optuna.storages.InMemoryStorage(), "s")


def test_a_space_without_range_tests_is_left_alone(tmp_path):
    plan = make_plan()
    assert calibrate(plan, lambda *_: pytest.fail("tested"), lambda *_: 0.0, tmp_path / "c.json") is plan


def test_curves_that_break_down_at_once(tmp_path):
    plan = calibrate(
        make_plan(space="\n  lr: {range_test: }\n"),
        lambda jobs, sweep: [Curve((), (), (), 1e-6) for _ in jobs],
        lambda params, steps: 0.0,
        tmp_path / "c.json",
    )
    assert (plan.calibration.bounds[0].low, plan.calibration.bounds[0].reading) == (1e-4, None)
    assert "training diverged within the first three steps for every seed" in plan.calibration.warnings[0]
