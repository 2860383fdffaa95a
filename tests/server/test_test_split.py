"""A test score stands beside the trial that it was measured for and beside no other, whoever shows it."""

from __future__ import annotations

import io

from optuna.storages import RDBStorage
from rich.console import Console

from dialin.cli.render import show_study, study_data
from dialin.client.local import LocalStudies
from dialin.lifecycle import TrialState
from dialin.planning.plan import ClusterShape, plan_study
from dialin.search.decision import Decision
from dialin.search.storage import open_storage
from dialin.search.study import Study
from dialin.specification import parse_spec
from dialin.store.studies import Studies
from dialin.study_flow.run import run_study
from tests import others
from tests.study_flow.test_run import Silent

pytestmark = others.RAY

SPEC = """\
name: small
objective: {dataset: synthetic}
space: {lr: [1e-4, 0.01, 0.1]}
search: {enqueue: [{lr: 0.01}, {lr: LR}]}
early_stopping: {asha: off}
budget: {trials: 1, epochs: 3}
"""


def extended(settings, lr: float):
    """A study that an older version tested at its end, without saying whose score it is, and that goes on with one more
    trial, which is complete; its test score."""
    text = SPEC.replace("LR", str(lr))
    result = run_study(parse_spec(text), settings, Silent(), "inline").result
    text = text.replace("trials: 1", "trials: 2")
    with Studies(settings.database) as studies:
        row = studies.find(result.study_id)
        known = dict(row.summary)
        for key in ("test_looks", "test_trial"):
            known.pop(key, None)
        studies.end(row.id, row.state, "", known)
        studies.mark_running(row.id, text)
    storage = open_storage(settings.database)
    study = Study.open(plan_study(parse_spec(text), ClusterShape(2)), storage, result.study_id)
    trial = study.ask()
    for epoch in (1, 2, 3):
        study.report(trial, epoch, 0.95 if lr > 0.01 else 0.15)
    study.tell(trial, Decision.of_state(TrialState.COMPLETE))
    assert isinstance(storage, RDBStorage)
    storage.engine.dispose()
    return result.study_id, result.test["accuracy"]


def everywhere(client, settings, study_id):
    """What each way of asking for a study shows."""
    with LocalStudies(settings) as studies:
        study, trials, best = studies.study(study_id), studies.trials(study_id), studies.best(study_id)
        best_yaml = studies.best_yaml(study_id)
    terminal = Console(file=io.StringIO(), width=200)
    show_study(terminal, study, trials, best)
    path = f"/api/v1/studies/{study_id}"
    machines = [client.get(path).json(), client.get(f"{path}/best").json(), study_data(study, trials, best)]
    texts = [
        client.get(f"{path}/best", headers={"Accept": "application/yaml"}).text,
        best_yaml,
        client.get(f"/studies/{study_id}").text,
        terminal.file.getvalue(),
    ]
    return best.trial, machines, texts


def test_beside_a_new_best_there_is_no_old_score(client, settings):
    study_id, score = extended(settings, 0.1)
    best, machines, texts = everywhere(client, settings, study_id)
    assert best == 1
    for text in texts:
        assert f"{score:.4g}" not in text
        assert f"{score:.6g}" not in text
    for data in machines:
        assert data["test"] is data["test_trial"] is None
        assert [look["trial"] for look in data["test_looks"]] == [0]


def test_beside_the_trial_that_was_tested_the_score_stays(client, settings):
    study_id, score = extended(settings, 1e-4)
    best, machines, texts = everywhere(client, settings, study_id)
    assert best == 0
    for data in machines:
        assert (data["test"]["accuracy"], data["test_trial"], len(data["test_looks"])) == (score, 0, 1)
    for text in texts:
        assert f"{score:.4f}" in text or f"{score:.6g}" in text
        assert "the only look" in text or "test accuracy" in text
