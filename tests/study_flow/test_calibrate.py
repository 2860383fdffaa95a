"""Range tests of a whole space: which are run, what the search makes of them."""

from __future__ import annotations

import math
from dataclasses import replace

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


OLD = """{"bounds": [{"combination": {"optimizer": "sgd"}, "low": 0.002, "high": 0.8, "reading": {"rises": 0.002,
 "falls": 0.8, "peak": 0.1, "steepest": 0.01, "loss_minimum": 0.1, "diverges": 1.5, "low": 0.002, "high": 0.8,
 "doubts": []}, "curves": [{"rates": [0.001, 0.1, 1.0], "losses": [2.3, 1.0, 2.0], "accuracies": [0.1, 0.8, 0.2],
 "diverged_at": 1.5}]}], "epochs": 3.5, "warnings": []}"""


def fake_tests(jobs, sweep):
    """sgd's curve lies two decades above adam's; at batch size 256 nothing can be seen."""
    shift = {"sgd": 0.0, "adam": -2.0}
    return [
        made(-3 + shift[p["optimizer"]], -1 + shift[p["optimizer"]], shift[p["optimizer"]],
             height=0.0 if p["batch_size"] == 256 else 0.8)
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
    trusted = by_combination["sgd", 64]
    low, rate, high = (math.log10(value) for value in (trusted.low, trusted.rate, trusted.high))
    assert rate == pytest.approx(-1, abs=0.1)  # the lowest loss and the default of sgd
    assert (low, high) == (pytest.approx(rate - 1), pytest.approx(rate + 1))
    for optimizer, default in (("sgd", 0.1), ("adam", 1e-3)):
        unclear = by_combination[optimizer, 256]
        assert unclear.rate == default
        assert (unclear.low, unclear.high) == (pytest.approx(default / 100), pytest.approx(default * 100))
    assert plan.calibration.warnings == (
        "range test of optimizer sgd, batch_size 256: the loss did not fall: it is lowest within the first quarter of "
        "the rates; the search starts from the default 0.1 instead",
        "range test of optimizer adam, batch_size 256: the loss did not fall: it is lowest within the first quarter of "
        "the rates; the search starts from the default 0.001 instead",
    )


def test_the_rate_is_in_the_middle_of_its_bounds(plan):
    for bounds in plan.calibration.bounds:
        assert bounds.rate_at(0.5) == pytest.approx(bounds.rate)
    assert "  0.11 (searched from 0.011 to 1.1)  optimizer sgd, batch_size 16" in plan.calibration.lines()


def test_the_knees_are_kept_as_bounds(tmp_path):
    plan = make_plan(space=SPACE.replace("seeds: 2", "seeds: 2, method: knees"))
    found = calibrate(plan, fake_tests, lambda params, steps: 0.0, tmp_path / "c.json").calibration.bounds[0]
    assert math.log10(found.low) == pytest.approx(-2.8, abs=0.1)
    assert math.log10(found.high) == pytest.approx(0.1, abs=0.1)
    assert found.rate_at(0.5) == pytest.approx(found.rate)


def test_a_third_of_the_lowest_loss(tmp_path):
    plan = make_plan(space=SPACE.replace("seeds: 2", "seeds: 2, method: third"))
    found = calibrate(plan, fake_tests, lambda params, steps: 0.0, tmp_path / "c.json").calibration.bounds[0]
    assert math.log10(found.rate) == pytest.approx(math.log10(0.1 / 3), abs=0.1)


def test_no_bound_is_above_what_is_allowed(tmp_path):
    plan = make_plan(space="\n  lr: {range_test: {method: third, max: 100}}\n")
    high = Curve(tuple(10.0**n for n in range(-4, 3)), (2.3, 2.3, 2.2, 2.1, 2.0, 1.0, 2.0), (0.1,) * 7)
    far = replace(high, losses=(2.3, 2.3, 2.2, 2.1, 2.0, 1.0, 0.5), diverged_at=200.0)
    found = calibrate(plan, lambda jobs, _: [far for _ in jobs], lambda *_: 0.0, tmp_path / "c.json").calibration
    (bounds,) = found.bounds
    assert (bounds.rate, bounds.high) == (pytest.approx(100 / 3), pytest.approx(100))
    assert bounds.rate_at(0.5) == pytest.approx(bounds.rate)


def test_what_an_older_version_stored_keeps_its_bounds(tmp_path):
    """Positions between them are stored as `lr_share`: other bounds would make other rates of them."""
    file = tmp_path / "calibration.json"
    file.write_text(OLD)
    plan = calibrate(make_plan(space=SPACE), lambda *_: pytest.fail("tested"), lambda *_: 0.0, file)
    (bounds,) = plan.calibration.bounds
    assert (bounds.low, bounds.high, bounds.rate, bounds.reading.rate) == (0.002, 0.8, None, None)
    assert bounds.rate_at(0.5) == pytest.approx(0.04)
    assert plan.calibration.lines()[-1] == "  0.002 to 0.8  optimizer sgd"


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
    assert (plan.calibration.bounds[0].rate, plan.calibration.bounds[0].reading) == (0.1, None)
    assert plan.calibration.bounds[0].low == pytest.approx(1e-3)
    assert "training diverged within the first three steps for every seed" in plan.calibration.warnings[0]
