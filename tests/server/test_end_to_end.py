"""A server of real processes: studies are submitted, everything is killed, and nothing is lost."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from dialin.search.storage import opened_storage
from dialin.search.trial_rows import read_study
from dialin.settings import Settings
from tests.faults.harness import kill
from tests.server.harness import Up, is_alive, wait_until

SPEC = """
name: small-digits
objective: {dataset: digits}
space:
  optimizer: [sgd, adam]
  lr: {min: 1e-3, max: 0.1, log: true}
  batch_size: {min: 8, max: 32, log: true}
search: {seed: 3}
early_stopping: {asha: {rungs: [9]}}
budget: {trials: 12, epochs: 27}
"""


def epochs_of(study) -> int:
    return sum(trial["epochs"] for trial in trials_of(study))


def trials_of(study) -> list[dict]:
    study.refresh()
    found = study.trials()
    return found.to_dict("records") if hasattr(found, "to_dict") else found


def check_mlflow(uri: str, study_id: str, trials: int) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()], max_results=1000)
    parents = [run for run in runs if not run.data.tags.get("dialin.trial")]
    assert len(parents) == 1, [run.data.tags for run in parents]
    assert Counter(run.info.status for run in parents) == {"FINISHED": 1}
    children = {run.data.tags["dialin.trial"] for run in runs if run.data.tags.get("dialin.trial")}
    assert len(runs) == trials + 1
    assert len(children) == trials
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_whatever_is_killed(tmp_path):
    """The API, the driver and MLflow are killed at different moments, and then all of it at once."""
    generator = random.Random(7)
    with Up(tmp_path) as up:
        with up.client() as client:
            study = client.submit(spec_file(tmp_path))
            wait_until(lambda: epochs_of(study) > 2, 120, "it trains")

            api = up.pid_of("api")
            kill(api)
            wait_until(lambda: "the API ended" in up.log(), 30, "its end is noticed")
            wait_until(lambda: epochs_of_or_zero(study) > 4, 120, "the API is back, and the study goes on")

            before = epochs_of(study)
            kill(generator.choice(up.drivers()))
            wait_until(lambda: study.refresh().info.attempts == 2, 60, "another attempt")
            wait_until(lambda: epochs_of(study) > before, 120, "the second driver trains")

            kill(up.pid_of("mlflow"))
            wait_until(lambda: "MLflow ended" in up.log(), 30, "its end is noticed")

            family = up.family()
            up.kill()
            wait_until(lambda: not any(map(is_alive, family)), 60, "the guards have ended all of it")
            up.start()
            study = client.study(study.id)
            study.wait(progress=False, timeout=240)
            assert study.info.state == "complete", study.info
            assert study.info.trials.complete + study.info.trials.stopped + study.info.trials.diverged == 12
            with opened_storage(Settings(up.out, up.out / "data").database) as storage:
                records = read_study(storage, study.id)
            assert [record.number for record in records] == list(range(12))
            for record in records:
                assert list(record.values) == list(range(1, len(record.values) + 1)), record
            wait_until(lambda: study.refresh().info.mirror_lag == 0, 60, "MLflow has everything")
            mlflow = next(line.split()[1] for line in reversed(up.log().splitlines()) if "  MLflow " in line)
            check_mlflow(mlflow, study.id, 12)
        family = up.family()
        assert up.stop() == 0, up.log()
        assert not any(map(is_alive, family))


def epochs_of_or_zero(study) -> int:
    try:
        return epochs_of(study)
    except Exception as error:
        if "ServerError" in type(error).__name__:
            return 0
        raise


def spec_file(folder):
    path = folder / "small.yaml"
    path.write_text(SPEC)
    return path
