"""When a trial saves its state, and that a failure belongs to the trial."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import pytest

from dialin.execution import trial_log
from dialin.execution import trial_run as trials
from dialin.execution.inline import InlineExecutor
from dialin.execution.trial_log import TrialLog
from dialin.execution.trial_run import TrialPlan, TrialRun, evaluate_checkpoint
from dialin.planning.plan import ClusterShape, Resources
from dialin.search.decision import Decision
from dialin.search.records import Trial


class Counting:
    """An objective whose metric is given, and whose state is the epoch."""

    def __init__(self, values, fail_at=None):
        self.values, self.fail_at = values, fail_at
        self.closed = 0

    def prepare(self, progress): ...

    def start(self, params, seed, resources):
        return CountingRun(self)


class CountingRun:
    def __init__(self, objective):
        self.objective, self.done = objective, 0

    def epoch(self):
        if self.done == self.objective.fail_at:
            raise ZeroDivisionError("on purpose")
        self.done += 1
        return {"val_accuracy": self.objective.values[self.done - 1]}

    def save(self, folder: Path):
        (folder / "epoch").write_text(str(self.done))

    def load(self, folder: Path):
        self.done = int((folder / "epoch").read_text())

    def test(self):
        return {"accuracy": self.done / 10}

    def findings(self):
        return []

    def close(self):
        self.objective.closed += 1


def make_plan(tmp_path, values, target=None, fail_at=None, compared_at=(), logs=None):
    objective = Counting(values, fail_at)
    return TrialPlan(objective, Resources(), len(values), "val_accuracy", True, target, tmp_path, (), compared_at, logs)


def saved(plan, trial=None):
    return [
        Path(report.checkpoint).name if report.checkpoint else None
        for reports in steps(plan, trial)
        for report in reports
    ]


def steps(plan, trial=None):
    """The reports of a whole trial, as they are handed over."""
    run, handed = TrialRun(plan, trial or Trial(3, {}, 1)), []
    while run.epoch < plan.epochs:
        handed.append(run.step())
    return handed


def epochs(handed):
    return [[report.epoch for report in reports] for reports in handed]


def test_short_epochs_are_handed_over_together(tmp_path):
    assert epochs(steps(make_plan(tmp_path, [0.1] * 5))) == [[1, 2, 3, 4, 5]]


def test_an_epoch_that_takes_long_is_handed_over_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "TOGETHER_SECONDS", 0.0)
    assert epochs(steps(make_plan(tmp_path, [0.1] * 3))) == [[1], [2], [3]]


def test_nothing_is_trained_beyond_a_decision(tmp_path):
    compared = make_plan(tmp_path, [0.1] * 6, compared_at=(1, 3))
    assert epochs(steps(compared)) == [[1], [2, 3], [4, 5, 6]]
    target = make_plan(tmp_path, [0.1, 0.9, 0.3], target=0.9)
    assert epochs(steps(target)) == [[1, 2], [3]]
    diverging = make_plan(tmp_path, [0.1, math.nan, 0.3])
    assert epochs(steps(diverging)) == [[1, 2], [3]]


def test_the_epochs_before_a_failure_are_handed_over_first(tmp_path):
    run = TrialRun(make_plan(tmp_path, [0.1] * 5, fail_at=2), Trial(3, {}, 1))
    assert [report.epoch for report in run.step()] == [1, 2]
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        run.step()


def test_the_last_epoch_is_saved(tmp_path):
    assert saved(make_plan(tmp_path, [0.1, 0.2, 0.3])) == [None, None, "epoch-0003"]
    assert (tmp_path / "0003" / "epoch-0003" / "epoch").read_text() == "3"
    assert [path.name for path in (tmp_path / "0003").iterdir()] == ["epoch-0003"]


def test_meeting_the_target_is_saved(tmp_path):
    assert saved(make_plan(tmp_path, [0.1, 0.9, 0.3], target=0.9)) == [None, "epoch-0002", "epoch-0003"]


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    assert saved(make_plan(tmp_path, [0.1, math.nan])) == [None, None]


def test_a_long_trial_is_saved_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trials, "CHECKPOINT_FRACTION", math.inf)
    assert saved(make_plan(tmp_path, [0.1, 0.2])) == ["epoch-0001", "epoch-0002"]


def test_saving_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trials, "CHECKPOINT_FRACTION", 1e-9)  # a first save makes the next one wait for ages
    assert saved(make_plan(tmp_path, [0.1, 0.2, 0.3, 0.4])) == ["epoch-0001", None, None, "epoch-0004"]


def test_a_trial_goes_on_from_its_checkpoint(tmp_path):
    plan = make_plan(tmp_path, [0.1, 0.2, 0.3], target=0.2)
    saved(plan)
    trial = Trial(3, {}, 1, epochs_done=2, checkpoint=str(tmp_path / "0003" / "epoch-0002"))
    (done,) = TrialRun(plan, trial).step()
    assert (done.epoch, done.metrics) == (3, {"val_accuracy": 0.3})
    assert evaluate_checkpoint(plan, trial, trial.checkpoint) == {"accuracy": 0.2}


def test_a_copied_study_goes_on_from_its_own_checkpoint(tmp_path):
    """Neither from the original's, nor from the start: absolute paths of the original are stored in older studies."""
    first, copied = make_plan(tmp_path / "a", [0.1, 0.2, 0.3]), make_plan(tmp_path / "b", [0.1, 0.2, 0.3, 0.4])
    saved(first)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "0003" / "epoch-0003" / "digests.json").write_text("{}")  # told from the original's by this
    (tmp_path / "a" / "0003" / "epoch-0003" / "epoch").write_text("damaged")
    for stored in ("0003/epoch-0003", str(tmp_path / "a" / "0003" / "epoch-0003")):
        (done,) = TrialRun(copied, Trial(3, {}, 1, epochs_done=3, checkpoint=stored)).step()
        assert done.epoch == 4
        assert done.checkpoint == "0003/epoch-0004"


def test_what_a_trial_prints_is_kept_in_its_log(tmp_path, capsys):
    plan = make_plan(tmp_path / "checkpoints", [0.1, 0.2], logs=tmp_path / "logs")
    epoch = CountingRun.epoch

    def talking(self):
        print(f"epoch {self.done + 1} \udcff")
        sys.stderr.write("a warning\n")
        return epoch(self)

    run = TrialRun(plan, Trial(3, {}, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CountingRun, "epoch", talking)
        run.step()
    print("between two trials")
    run.close()
    log = (tmp_path / "logs" / "trial-0003.log").read_text()
    assert log == "epoch 1 \\udcff\na warning\nepoch 2 \\udcff\na warning\n"
    assert "between two trials" in capsys.readouterr().out


def test_a_trial_that_prints_nothing_has_no_log(tmp_path):
    run = TrialRun(make_plan(tmp_path / "checkpoints", [0.1], logs=tmp_path / "logs"), Trial(3, {}, 1))
    run.step()
    assert not (tmp_path / "logs").exists()


def test_a_log_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_log, "MOST_BYTES", 4096)
    for _ in range(2):  # taken up twice: the bound is of the file
        with TrialLog(tmp_path / "log").captured():
            for number in range(2000):
                print(f"line {number}")
    text = (tmp_path / "log").read_text()
    assert text.startswith("line 0\nline 1\n")
    assert text.count("is not kept]") == 2
    assert len(text) < 4096 + 200


class OneTrial:
    """A driver with one trial to hand out, which never stops it early."""

    over = None

    def __init__(self, epochs):
        self.pending, self.epochs, self.seen, self.failed = [Trial(0, {}, 1)], epochs, [], []

    def ask(self):
        return self.pending.pop() if self.pending else None

    def report(self, trial, reports):
        self.seen += [report.epoch for report in reports]
        return Decision("complete" if self.seen[-1] == self.epochs else "continue", "all_epochs")

    def fail(self, trial, traceback):
        self.failed.append(traceback)


@pytest.mark.parametrize(("fail_at", "seen"), [(None, [1, 2, 3]), (2, [1, 2]), (0, [])])
def test_the_inline_runner(tmp_path, fail_at, seen):
    plan, driver = make_plan(tmp_path, [0.1, 0.2, 0.3], fail_at=fail_at), OneTrial(3)
    InlineExecutor(ClusterShape(1)).train(driver, plan)
    assert driver.seen == seen
    assert plan.objective.closed == 1
    assert ["ZeroDivisionError: on purpose" in text for text in driver.failed] == [True] * (fail_at is not None)
