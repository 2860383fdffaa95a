"""A study of several metrics in a real MLflow on SQLite: metrics of each trial, tags and the report, files of the front."""

from __future__ import annotations

import pytest

from dialin.events.log import FILE, read_events
from dialin.events.rebuild import append, rebuild
from dialin.events.types import StudyStarted
from dialin.paths import OutputFolder
from dialin.results.export import write_pareto
from dialin.settings import Settings
from dialin.specification import to_yaml
from dialin.study_flow.mirror import ending_event, params_of
from dialin.study_flow.read_back import load_study
from dialin.study_flow.result_files import draw_front
from dialin.tracking.replicate import Replicator
from tests import others
from tests.several_metrics import store_study
from tests.tracking.studies import client_of, drain

pytestmark = others.MLFLOW


@pytest.fixture
def ended(tmp_path):
    """A stored study with the files of its result, and its folder; its event log says how it has ended."""
    settings = Settings(tmp_path / "out", tmp_path / "data")
    row = store_study(settings)
    study, folder = load_study(settings, row.id), OutputFolder(settings.out).study(row.id)
    write_pareto(folder.pareto, study.spec, study.trials, study.result)
    draw_front(study.spec, study.result, study.trials, folder.pareto_plot)
    append(folder.events, [ending_event(study.spec, study.result, study.trials, folder, None)])
    return study, folder


def runs_of(client):
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    found = client.search_runs([experiment.experiment_id])
    parent = next(run for run in found if run.data.tags["dialin.kind"] == "study")
    return parent, {int(run.data.tags["dialin.trial"]): run for run in found if "dialin.trial" in run.data.tags}


def test_the_front_is_in_the_tags_the_report_and_the_files_of_the_study(ended, database, tmp_path):
    _, folder = ended
    client = client_of(database)
    drain(Replicator(folder.events, client, tmp_path / "artifacts"))
    parent, trials = runs_of(client)
    assert (parent.data.tags["dialin.best_trial"], parent.data.tags["dialin.front_trials"]) == ("1", "1, 4, 0")
    note = parent.data.tags["mlflow.note.content"]
    assert "The Pareto front of val_accuracy (max), parameters (min) within memory at most 400: trials 1, 4, 0." in note
    assert "| 1 | 0.9500 | 50,000 | 300 | 1 | 3 | complete |" in note
    assert "violates memory" in note
    assert parent.data.metrics["best_val_accuracy"] == pytest.approx(0.95)
    assert (parent.data.metrics["best_parameters"], parent.data.metrics["front_trials"]) == (1000, 3)
    names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert names == {"index.yaml", "trial-0000.yaml", "trial-0001.yaml", "trial-0004.yaml", "pareto.svg"}
    steps = client.get_metric_history(trials[4].info.run_id, "parameters")
    assert [(point.step, point.value) for point in steps] == [(epoch, 20_000) for epoch in (1, 2, 3)]
    assert trials[4].data.metrics["val_accuracy"] == pytest.approx(0.9)


def test_the_params_say_what_is_wanted_and_a_rebuilt_log_has_every_metric(ended, database, tmp_path):
    study, folder = ended
    params = params_of(study.spec)
    assert params["metrics"] == "val_accuracy (max), parameters (min)"
    assert params["constraints"] == "memory at most 400"
    (folder.events / FILE).unlink()
    started = StudyStarted(study.row.id, study.row.name, params, {"spec": to_yaml(study.spec)})
    rebuild(folder.events, started, "val_accuracy", study.trials)
    reports = [event for event in read_events(folder.events, 0).events if event.kind == "epoch"]
    assert {name for event in reports for name in event.metrics} == {"val_accuracy", "parameters", "memory"}
    assert reports[0].metrics["parameters"] == 1000
