"""A person's own training function: what it reports, saves and raises, and how it goes on and is stopped."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest

from service.errors import DataError
from service.objectives import python_function
from service.objectives.checkpoints import load_checkpoint, save_checkpoint
from service.objectives.python_function import PythonFunction, PythonRun, TrialStopped

COUNTING = """
import json

def train(config, trial):
    total, folder = 0, trial.checkpoint.load()
    if folder is not None:
        total = json.loads((folder / "deep" / "total.json").read_text())
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        total += config["add"]
        if config.get("saves", True):
            with trial.checkpoint.save() as folder:
                (folder / "deep").mkdir()
                (folder / "deep" / "total.json").write_text(json.dumps(total))
        trial.report(epoch, total, seed=trial.seed)
        if trial.should_stop:
            return
"""


def write(tmp_path, text, epochs=5):
    (tmp_path / "train.py").write_text(text)
    objective = PythonFunction(tmp_path / "train.py", "train", "value", epochs)
    objective.prepare(print)
    return objective


def start(objective, params=None, seed=7) -> PythonRun:
    return objective.start(params or {"add": 2}, seed, None)


def no_training_threads():
    return not [thread for thread in threading.enumerate() if thread.name == "training"]


def test_it_trains_an_epoch_at_a_time(tmp_path):
    run = start(write(tmp_path, COUNTING))
    assert [run.epoch() for _ in range(3)] == [{"value": 2.0 * n, "seed": 7.0} for n in (1, 2, 3)]
    run.close()
    assert no_training_threads()


@pytest.mark.parametrize("saves", [True, False], ids=["from its files", "from the beginning, unheard"])
def test_it_goes_on_where_it_was_saved(tmp_path, saves):
    objective = write(tmp_path, COUNTING)
    params = {"add": 2, "saves": saves}
    run = start(objective, params)
    run.epoch()
    run.epoch()
    save_checkpoint(run, tmp_path / "epoch-0002")
    run.close()
    other = start(objective, params)
    load_checkpoint(other, tmp_path / "epoch-0002")
    assert [other.epoch()["value"] for _ in range(3)] == [6.0, 8.0, 10.0]
    other.close()
    assert no_training_threads()


def test_an_older_state_than_the_epoch_is_gone_on_from_unheard(tmp_path):
    text = COUNTING.replace('config.get("saves", True)', "epoch == 1")
    objective = write(tmp_path, text)
    run = start(objective)
    for _ in range(3):
        run.epoch()
    save_checkpoint(run, tmp_path / "epoch-0003")
    run.close()
    other = start(objective)
    load_checkpoint(other, tmp_path / "epoch-0003")
    assert other.epoch()["value"] == 8.0
    other.close()


def test_a_state_of_another_configuration_is_refused(tmp_path):
    objective = write(tmp_path, COUNTING)
    run = start(objective)
    run.epoch()
    save_checkpoint(run, tmp_path / "epoch-0001")
    run.close()
    with pytest.raises(DataError, match="belongs to another configuration"):
        load_checkpoint(start(objective, {"add": 3}), tmp_path / "epoch-0001")


def test_what_it_raises_is_the_trials(tmp_path):
    run = start(write(tmp_path, "def train(config, trial):\n    trial.report(1, 0.5)\n    1 / 0\n"))
    assert run.epoch() == {"value": 0.5}
    with pytest.raises(ZeroDivisionError) as raised:
        run.epoch()
    assert Path(raised.traceback[-1].path).name == "train.py"
    run.close()


def test_its_module_is_the_trials_too(tmp_path):
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        start(write(tmp_path, "import nothing_of_that_name\ndef train(config, trial): ...\n")).epoch()


def test_it_can_import_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_it_of_the_tests.py").write_text("VALUE = 0.25\n")
    text = "from beside_it_of_the_tests import VALUE\ndef train(config, trial): trial.report(1, VALUE)\n"
    run = start(write(tmp_path, text))
    assert run.epoch() == {"value": 0.25}
    run.close()


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("trial.report(2, 0.5)", ValueError, "epoch 2 was reported; the next one is 1"),
        ("trial.report(1, 0.5); trial.report(1, 0.5)", ValueError, "epoch 1 was reported; the next one is 2"),
        ("trial.report(1.0, 0.5)", ValueError, r"epoch 1.0 was reported; the next one is 1"),
        ("trial.report(1, '0.5')", TypeError, "value is '0.5', and not a number"),
        ("trial.report(1, 0.5, loss=None)", TypeError, "loss is None, and not a number"),
        ("pass", RuntimeError, r"train returned after 0 of 5 epochs \(trial.epochs\)"),
        ("trial.report(1, 0.5)", RuntimeError, r"train returned after 1 of 5 epochs \(trial.epochs\)"),
    ],
)
def test_what_is_reported_wrongly_says_so(tmp_path, body, error, message):
    run = start(write(tmp_path, f"def train(config, trial):\n    {body}\n"))
    with pytest.raises(error, match=message):
        for _ in range(3):
            run.epoch()
    run.close()


def test_numbers_of_numpy_are_numbers_and_nan_comes_through(tmp_path):
    text = "import numpy as np\ndef train(config, trial): trial.report(1, np.float32(0.5), loss=np.nan)\n"
    run = start(write(tmp_path, text))
    metrics = run.epoch()
    assert metrics["value"] == 0.5
    assert math.isnan(metrics["loss"])
    run.close()


def test_one_that_does_not_look_is_stopped_at_its_next_report(tmp_path):
    """Even where it catches all exceptions."""
    text = """
def train(config, trial):
    epoch = 0
    while True:
        try:
            epoch += 1
            trial.report(epoch, 0.5)
        except Exception:
            pass
"""
    run = start(write(tmp_path, text))
    run.epoch()
    run.close()
    assert no_training_threads()
    assert not issubclass(TrialStopped, Exception)


def test_one_that_hears_nothing_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(python_function, "CLOSE_SECONDS", 0.05)
    text = """
import pathlib, time
def train(config, trial):
    trial.report(1, 0.5)
    while not pathlib.Path(config["until"]).exists():
        time.sleep(0.01)
"""
    run = start(write(tmp_path, text), {"until": str(tmp_path / "enough")})
    run.epoch()
    run.close()
    assert "train goes on 0.05 s after it was told to stop; it is left alone" in capsys.readouterr().err
    (tmp_path / "enough").touch()
    deadline = time.monotonic() + 30
    while not no_training_threads():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file .*train.py"),
        ("def train(:\n", "train.py, line 1: "),
        ("def other(): ...\nclass More: ...\nVALUE = 1\n", "no 'train' in .*train.py; there: other, More, VALUE"),
        ("", "no 'train' in .*train.py; there: -"),
    ],
)
def test_what_is_not_there_is_found_before_anything_runs(tmp_path, text, message):
    if text is not None:
        (tmp_path / "train.py").write_text(text)
    with pytest.raises(DataError, match=message):
        PythonFunction(tmp_path / "train.py", "train", "value", 5).prepare(print)


@pytest.mark.parametrize("name", ["service", "search_spaces.py"])
def test_a_folder_that_would_hide_our_own_code_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=f"{name} would hide dialin's own; rename it"):
        write(tmp_path, COUNTING)


def test_looking_runs_nothing(tmp_path):
    write(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\ndef train(config, trial): ...\n")
    assert not (tmp_path / "ran").exists()
