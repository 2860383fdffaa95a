"""A person's own function as a Run: what it reports, saves and raises, and how it ends."""

from __future__ import annotations

import functools
import math
import pickle
import sys
import threading
import time
from decimal import Decimal

import numpy as np
import pytest

from dialin.errors import DataError, FunctionError, UsageError
from dialin.execution.inline import InlineExecutor
from dialin.execution.trial_run import TrialPlan, TrialRun
from dialin.objectives import python_function
from dialin.objectives.base import NoMoreEpochsError
from dialin.objectives.function_trial import Exchange, Report, number
from dialin.objectives.python_function import PythonFunction
from dialin.planning.plan import ClusterShape, Resources
from dialin.search.decision import Decision
from dialin.search.records import Trial
from dialin.specification.range_tests import Sweep

COUNTING = """
def train(config, trial):
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        trial.report(epoch, epoch / 10, loss=1 / epoch)
        if trial.should_stop:
            return
"""

SAVING = """
def train(config, trial):
    folder = trial.checkpoint.load()
    done = 0 if folder is None else int((folder / "deep" / "done").read_text())
    assert done == trial.epoch
    for epoch in range(done + 1, trial.epochs + 1):
        if epoch % config["every"] == 0:
            with trial.checkpoint.save(epoch) as folder:
                (folder / "deep").mkdir()
                (folder / "deep" / "done").write_text(str(epoch))
        trial.report(epoch, epoch / 10, started_at=done)
        if trial.should_stop:
            return
"""


@pytest.fixture
def objective(tmp_path, monkeypatch):
    """Writes a file, and gives the objective of its function."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(text: str, epochs: int = 4, function: str = "train") -> PythonFunction:
        file = tmp_path / "train.py"
        file.write_text(text)
        return PythonFunction(file, function, "score", epochs)

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def start(objective, **params):
    return objective.start(params, 2**40 + 3, Resources())


def test_reports_become_epochs_and_the_value_gets_its_name(objective):
    run = start(objective(COUNTING))
    assert [run.epoch() for _ in range(3)] == [
        {"score": 0.1, "loss": 1.0},
        {"score": 0.2, "loss": 0.5},
        {"score": 0.3, "loss": 1 / 3},
    ]
    assert (run.test(), list(run.findings())) == ({}, [])
    run.close()


def test_the_function_waits_at_each_report_and_sees_the_end(objective, tmp_path):
    run = start(objective(f"""
from pathlib import Path
def train(config, trial):
    seen = []
    for epoch in range(1, 9):
        trial.report(epoch, config["lr"] + trial.seed)
        seen.append((epoch, trial.should_stop))
        if trial.should_stop:
            break
    Path({str(tmp_path)!r}, "seen").write_text(repr(seen))
"""), lr=0.5)  # fmt: skip
    assert run.epoch() == {"score": 3.5}  # seeds fit into 32 bits
    run.epoch()
    run.close()
    assert (tmp_path / "seen").read_text() == "[(1, False), (2, True)]"


def test_a_function_that_goes_on_is_ended_at_its_next_report(objective, tmp_path):
    run = start(objective(f"""
from pathlib import Path
def train(config, trial):
    try:
        for epoch in range(1, 9):
            try:
                trial.report(epoch, 0.5)
            except Exception:
                pass
    finally:
        Path({str(tmp_path)!r}, "last").write_text(str(epoch))
"""))  # fmt: skip
    run.epoch()
    run.close()
    assert (tmp_path / "last").read_text() == "2"


def test_a_function_that_does_not_listen_is_left_behind(objective, monkeypatch, caplog):
    monkeypatch.setattr(python_function, "CLOSE_SECONDS", 0.05)
    run = start(objective("""
import threading
go_on = threading.Event()
def train(config, trial):
    trial.report(1, 0.5)
    go_on.wait()
"""))  # fmt: skip
    run.epoch()
    began = time.monotonic()
    run.close()
    assert time.monotonic() - began < 5
    assert "train still runs after the end of its trial" in caplog.text
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "train"]
    assert thread.daemon
    sys.modules[python_function._module_name(run._objective.file)].go_on.set()
    thread.join()


def failure_of(run, epochs=1):
    with pytest.raises(FunctionError) as caught:
        for _ in range(epochs):
            run.epoch()
    run.close()
    return str(caught.value)


def test_what_it_raises_has_its_own_traceback_and_can_be_sent(objective):
    text = failure_of(
        start(objective("class OwnError(Exception): ...\ndef train(config, trial):\n    raise OwnError('no data')\n"))
    )
    assert text.splitlines()[0] == "Traceback (most recent call last):"
    assert 'train.py", line 3, in train' in text.splitlines()[1]
    assert text.splitlines()[-1] == "train.OwnError: no data"
    assert "python_function.py" not in text
    assert str(pickle.loads(pickle.dumps(FunctionError(text)))) == text


@pytest.mark.parametrize(
    ("body", "last"),
    [
        ("trial.report(2, 0.5)", "ValueError: trial.report: epoch 2; the next epoch is 1"),
        ("trial.report(0, 0.5)", "ValueError: trial.report: epoch 0; the next epoch is 1"),
        ("trial.report(1, 0.5); trial.report(1, 0.5)", "ValueError: trial.report: epoch 1; the next epoch is 2"),
        ("trial.report(1.5, 0.5)", "TypeError: trial.report: the epoch is 1.5, which is not an integer"),
        ("trial.report(1, None)", "TypeError: trial.report: score is None, which is not a number"),
        ("trial.report(1, 1, loss='low')", "TypeError: trial.report: loss is 'low', which is not a number"),
        ("trial.report(1, 1, score=1)", "ValueError: trial.report: 'score' is the value that the study optimizes; pass it as the second argument only"),
        ("trial.report(1, 1, **{'a=b': 1})", "ValueError: trial.report: 'a=b' cannot be the name of a metric; allowed: up to 250 letters, digits, spaces and _ - . /, the first a letter, a digit or _"),
        ("trial.checkpoint.save(3).__enter__()", "ValueError: trial.checkpoint.save(3): allowed are the next epoch to report, 1, and the one before it"),
        ("exit('no gpu')", "SystemExit: no gpu"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("pass", "train returned without a report; call trial.report(epoch, value) after each epoch"),
        ("return 0.7", "train returned 0.7 without a report; call trial.report(epoch, value) after each epoch"),
    ],
)  # fmt: skip
def test_mistakes(objective, body, last):
    run = start(objective(f"import sys\nexit = sys.exit\ndef train(config, trial):\n    {body}\n"))
    assert failure_of(run, 3).splitlines()[-1] == last


@pytest.mark.parametrize(
    ("value", "read"),
    [(1, 1.0), (np.float32(0.5), 0.5), (np.array([[0.25]]), 0.25), (np.int64(3), 3.0), (10**400, math.inf)],
)
def test_numbers(value, read):
    assert number("x", value) == read
    assert type(number("x", value)) is float


def test_a_tensor_is_a_number():
    import torch

    assert number("x", torch.tensor(0.5, requires_grad=True)) == 0.5


@pytest.mark.parametrize("value", ["1", None, True, np.bool_(True), 1j, [1], np.zeros(2), Decimal(1)])
def test_no_numbers(value):
    with pytest.raises(TypeError, match="x is .* which is not a number"):
        number("x", value)


def test_what_is_not_a_number_goes_on_to_the_driver(objective):
    run = start(objective("def train(config, trial):\n    trial.report(1, float('nan'))\n"))
    assert math.isnan(run.epoch()["score"])
    run.close()


def test_returning_early_is_an_end(objective):
    run = start(objective("def train(config, trial):\n    trial.report(1, 0.5)\n    trial.report(2, 0.6)\n"))
    run.epoch()
    run.epoch()
    for _ in range(2):
        with pytest.raises(NoMoreEpochsError, match="train returned after epoch 2 of 4"):
            run.epoch()
    run.close()


def test_a_number_that_is_returned_early_is_not_passed_over_in_silence(objective):
    run = start(objective("def train(config, trial):\n    trial.report(1, 0.5)\n    return 0.75\n"))
    run.epoch()
    with pytest.raises(NoMoreEpochsError, match="; the returned value 0.75 is ignored, only trial.report counts"):
        run.epoch()
    run.close()


def trial_plan(objective, tmp_path, rungs=()):
    return TrialPlan(
        objective, Resources(), objective.epochs, "score", True, None, tmp_path / "checkpoints", rungs, rungs
    )


def reports_of(run, count):
    """So many reports of a trial, however many come together."""
    reports = []
    while len(reports) < count:
        reports += run.step()
    assert len(reports) == count
    return reports


@pytest.mark.parametrize(("every", "from_epoch"), [(1, 2), (2, 2), (3, 0), (9, 0)])
def test_a_trial_goes_on_from_what_was_saved_and_reports_nothing_twice(objective, tmp_path, every, from_epoch):
    plan = trial_plan(objective(SAVING), tmp_path, rungs=(2,))
    first = TrialRun(plan, Trial(0, {"every": every}, 1))
    checkpoint = reports_of(first, 2)[-1].checkpoint
    first.close()
    second = TrialRun(plan, Trial(0, {"every": every}, 1, 2, checkpoint))
    done = reports_of(second, 2)
    second.close()
    assert [(step.epoch, step.metrics["score"]) for step in done] == [(3, 0.3), (4, 0.4)]
    assert {step.metrics["started_at"] for step in done} == {from_epoch}
    assert done[-1].checkpoint is not None


def test_a_damaged_checkpoint_costs_epochs_and_not_the_trial(objective, tmp_path, caplog):
    plan = trial_plan(objective(SAVING), tmp_path, rungs=(1, 2))
    run = TrialRun(plan, Trial(0, {"every": 1}, 1))
    checkpoint = reports_of(run, 2)[-1].checkpoint
    run.close()
    (plan.checkpoints / checkpoint / "state" / "deep" / "done").write_text("7")
    again = TrialRun(plan, Trial(0, {"every": 1}, 1, 2, checkpoint))
    done = again.step()[0]
    again.close()
    assert (done.epoch, done.metrics["started_at"]) == (2, 1)
    assert "is damaged: state/deep/done was changed" in caplog.text


@pytest.mark.parametrize(
    ("begins", "loads", "hint"),
    [
        (1, True, "epoch 1; the next epoch is 3, because a state was loaded: start with range(trial.epoch + 1, ...); trial.epoch is 2"),
        (3, False, "epoch 3; the next epoch is 1, because no state was loaded: call trial.checkpoint.load()"),
    ],
)  # fmt: skip
def test_a_state_and_its_epoch_belong_together(objective, tmp_path, begins, loads, hint):
    text = f"""
def train(config, trial):
    if trial.epoch and {loads}:
        trial.checkpoint.load()
    for epoch in range({begins} if trial.epoch else 1, 9):
        with trial.checkpoint.save(epoch): pass
        trial.report(epoch, 0.5)
"""
    text = text.replace(
        "with trial.checkpoint.save(epoch): pass",
        "if not trial.epoch:\n            with trial.checkpoint.save(epoch): pass",
    )
    plan = trial_plan(objective(text), tmp_path, rungs=(2,))
    run = TrialRun(plan, Trial(0, {}, 1))
    checkpoint = reports_of(run, 2)[-1].checkpoint
    run.close()
    again = TrialRun(plan, Trial(0, {}, 1, 2, checkpoint))
    with pytest.raises(FunctionError) as caught:
        again.step()
    again.close()
    assert str(caught.value).endswith(hint)


def test_a_state_that_was_not_written_whole_is_not_kept(objective, tmp_path):
    run = start(objective("""
def train(config, trial):
    with trial.checkpoint.save(1) as folder:
        (folder / "good").write_text("1")
    try:
        with trial.checkpoint.save(1) as folder:
            (folder / "half").write_text("1")
            raise OSError
    except OSError:
        pass
    trial.report(1, 0.5)
"""))  # fmt: skip
    run.epoch()
    run.save(tmp_path / "saved" if (tmp_path / "saved").mkdir() is None else tmp_path)
    run.close()
    assert [file.name for file in (tmp_path / "saved" / "state").iterdir()] == ["good"]
    assert not run._scratch.exists()


def test_a_checkpoint_of_another_configuration_is_refused(objective, tmp_path):
    train = objective(COUNTING)
    run = start(train, lr=0.1)
    run.epoch()
    run.save(tmp_path)
    run.close()
    other = start(train, lr=0.2)
    with pytest.raises(DataError, match="belongs to another configuration"):
        other.load(tmp_path)
    other.close()


def test_it_imports_its_neighbours_and_hides_nothing(objective, tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 0.7")
    (tmp_path / "math.py").write_text("raise RuntimeError('not this one')")
    run = start(objective(
        "import math, beside\nfrom dataclasses import dataclass\n@dataclass\nclass C: x: float\n"
        "def train(config, trial):\n    trial.report(1, C(beside.VALUE).x * math.sqrt(1))\n"
    ))  # fmt: skip
    assert run.epoch() == {"score": 0.7}
    run.close()
    assert sys.path[-1] == str(tmp_path)


def test_preparing_runs_nothing(objective):
    train = objective("raise RuntimeError('run by mistake')\ndef train(config, trial): ...\n")
    train.prepare(print)
    assert pickle.loads(pickle.dumps(train)) == train
    with pytest.raises(FunctionError, match="no function 'fit' in .*train.py; allowed: train"):
        objective("def train(config, trial): ...\n", function="fit").prepare(print)


def test_there_is_no_range_test(objective):
    with pytest.raises(
        UsageError, match=r"train.py:train is a user's training function, for which there is no range test"
    ):
        objective(COUNTING).range_test({}, 0, Resources(), Sweep(1e-3, 1, 10))


class OneTrial:
    """A driver with one trial to hand out."""

    over = None
    finished = True

    def __init__(self):
        self.pending, self.said = [Trial(0, {}, 1)], []

    def ask(self):
        return self.pending.pop() if self.pending else None

    def report(self, trial, reports):
        self.said += reports
        return Decision("continue" if reports[-1].ended is None else "complete", "no_more_epochs")


def test_the_inline_runner_completes_what_returns_early(objective, tmp_path):
    train = objective("def train(config, trial):\n    trial.report(1, 0.5)\n")
    driver = OneTrial()
    InlineExecutor(ClusterShape(1)).train(driver, trial_plan(train, tmp_path))
    assert [(report.epoch, report.metrics, report.ended) for report in driver.said] == [
        (1, {"score": 0.5}, None),
        (1, {"score": 0.5}, "train returned after epoch 1 of 4"),
    ]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    deadline = time.monotonic() + 10
    left = functools.partial(lambda: [thread for thread in threading.enumerate() if thread.name == "train"])
    while left() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left()


def test_a_report_may_come_before_it_is_asked_for():
    exchange = Exchange()
    reports = [Report(epoch, {"score": 0.5}) for epoch in (1, 2)]
    thread = threading.Thread(target=lambda: [exchange.hand_over(report) for report in reports] and exchange.end())
    thread.start()
    while exchange._report is None:
        time.sleep(0.001)
    assert [exchange.next(), exchange.next()] == reports
    exchange.close()
    thread.join()
