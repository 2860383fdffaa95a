"""Whole studies with several metrics and with constraints, in this process."""

from __future__ import annotations

import sys

import optuna
import pytest
import yaml

from dialin.lifecycle import TrialState
from dialin.paths import OutputFolder
from dialin.settings import Settings
from dialin.specification import load_spec, parse_spec
from dialin.study_flow.read_back import load_study
from dialin.study_flow.run import extend_study, run_study
from tests.study_flow.test_run import Silent

DIGITS = """
name: digits-two
objective: {dataset: digits, samples: 300, metrics: [val_accuracy, parameters]}
constraints: {parameters: {max: 3000}, epoch_seconds: {max: 600}}
space:
  width: {min: 2, max: 24}
  depth: 1
  lr: {min: 1e-3, max: 0.3, log: true}
  batch_size: 32
search: {sampler: random}
budget: {trials: 6, epochs: 3}
"""

OWN = """
def train(config, trial):
    folder = trial.checkpoint.load()
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        with trial.checkpoint.save(epoch) as folder:
            (folder / "epoch").write_text(str(epoch))
        trial.report(epoch, {"good": config["x"] * (1 - 0.5**epoch), "cost": config["x"] + config["y"]}, size=config["y"])
        if trial.should_stop:
            return
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Settings.read({}, out=str(tmp_path / "out"))


def own_spec(tmp_path, constraints="{}", name="own_two"):
    (tmp_path / f"{name}.py").write_text(OWN)
    text = f"""
name: own
objective: {{python: "{name}.py:train", metrics: [good, {{name: cost, mode: min}}]}}
constraints: {constraints}
space: {{x: {{min: 0.0, max: 1.0}}, y: {{min: 0.0, max: 1.0}}}}
search: {{sampler: random}}
budget: {{trials: 8, epochs: 3}}
"""
    return parse_spec(text, folder=tmp_path)


def test_digits_with_two_metrics_from_beginning_to_end(settings):
    result = run_study(parse_spec(DIGITS), settings, Silent(), "inline").result
    assert result.state == "complete", result.reason
    assert [metric.name for metric in result.metrics] == ["val_accuracy", "parameters"]
    assert result.best == result.front[0]
    assert result.paths["best_config"] is None
    for point in result.front:
        assert set(point.values) == {"val_accuracy", "parameters"}
        assert point.bounded["parameters"] == point.values["parameters"] <= 3000
        assert 0 < point.bounded["epoch_seconds"] < 600
    assert {look.trial for look in result.looks} == {point.trial for point in result.front}
    stored = load_study(settings, "digits-two")
    assert stored.result == result
    for trial in stored.trials:
        if trial.values:
            assert set(trial.others) == {"parameters", "epoch_seconds"}
            assert set(trial.others["parameters"]) == set(trial.values)
    study = optuna.load_study(study_name=result.study_id, storage=f"sqlite:///{settings.out / 'dialin.db'}")
    assert {trial.number for trial in study.best_trials} >= {point.trial for point in result.front}


def test_the_configuration_of_each_point_trains_it_again(settings):
    result = run_study(parse_spec(DIGITS), settings, Silent(), "inline").result
    folder = OutputFolder(settings.out).study(result.study_id).pareto
    assert str(folder) == result.paths["pareto"]
    index = yaml.safe_load((folder / "index.yaml").read_text())
    assert [point["trial"] for point in index["points"]] == [point.trial for point in result.front]
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        ["index.yaml", *(one["file"] for one in index["points"])]
    )
    point, entry = result.front[-1], index["points"][-1]
    assert (entry["values"], entry["test"]) == (dict(point.values), dict(result.looks[-1].values))
    text = (folder / entry["file"]).read_text()
    assert text.startswith(f"# On the Pareto front of study {result.study_id}: trial {point.trial}, val_accuracy ")
    again = run_study(load_spec(folder / entry["file"]), settings, Silent(), "inline").result
    assert again.front[0].values == point.values


def test_a_function_of_ones_own_reports_two_metrics_and_what_is_bounded(settings, tmp_path):
    spec = own_spec(tmp_path, "{size: {max: 0.7}}")
    result = run_study(spec, settings, Silent(), "inline").result
    assert result.state == "complete", result.reason
    records = load_study(settings, "own").trials
    for record in records:
        assert set(record.others) == {"cost", "size"}
        assert record.others["cost"][1] == record.params["x"] + record.params["y"]
    assert result.front
    for point in result.front:
        assert point.params["y"] <= 0.7
        complete = [one for one in records if one.state is TrialState.COMPLETE and one.params["y"] <= 0.7]
        assert not any(
            one.params["x"] > point.params["x"] and one.others["cost"][3] < point.values["cost"] for one in complete
        )


def test_where_no_trial_meets_the_constraints_the_study_says_so(settings, tmp_path):
    snapshot = run_study(own_spec(tmp_path, "{size: {min: 2}}", "own_none"), settings, Silent(), "inline")
    assert (snapshot.result.best, snapshot.result.front, snapshot.result.state) == (None, (), "failed")
    assert snapshot.result.reason == "no trial that was trained to its full length meets the constraints (size)"
    assert "the constraint on size is violated, rank" in " ".join(trial.reason for trial in snapshot.trials)


def test_an_extension_replaces_the_folder_of_the_front(settings, tmp_path):
    first = run_study(own_spec(tmp_path, name="own_more"), settings, Silent(), "inline").result
    folder = OutputFolder(settings.out).study(first.study_id).pareto
    (folder / "trial-9999.yaml").write_text("left")
    second = extend_study("last", settings, Silent(), "inline", trials="+8").result
    assert sorted(file.name for file in folder.glob("trial-*")) == [f"trial-{n:04d}.yaml" for n in sorted(point.trial for point in second.front)]  # fmt: skip
    assert len(second.front) >= 1
