"""What a terminal and a file get to see."""

from __future__ import annotations

import io
import math
import time

from rich.console import Console

from dialin.lifecycle import TrialState
from dialin.search.decision import Decision
from dialin.search.records import Trial, TrialRecord
from dialin.study_flow.progress import Progress, StudyClock
from tests.factories import make_plan


class Clock:
    now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def play(console, clock=None):
    trial = Trial(0, {"lr": 0.1, "optimizer": "sgd"}, 1)
    other = Trial(1, {"lr": 0.2, "optimizer": "adam"}, 1)
    with Progress(console, clock or Clock()) as progress:
        progress.planned("small-abc", make_plan("budget.trials=4"))
        for number, started in enumerate((trial, other)):
            progress.trial_started(started)
            progress.epoch_done(started, 1, 0.5 + number / 10)
        progress.epoch_done(other, 2, math.nan)
        progress.trial_ended(other, Decision.of_state(TrialState.DIVERGED, "nan"))
        progress.epoch_done(trial, 2, 0.55)
        progress.trial_ended(trial, Decision.of_state(TrialState.FAILED, "ValueError: x"))
        return progress.seconds_left()


def test_plain_lines_where_there_is_no_terminal():
    file = io.StringIO()
    left = play(Console(file=file, width=200))
    text = file.getvalue()
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == (
        "study small-abc: 4 trials of up to 9 epochs on synthetic, 2 at a time, compared after epochs 1, 3"
    )
    assert "trial 0 failed: ValueError: x" in lines
    assert lines[-1].startswith(
        "2 of 4 trials started, 0 running, 1 diverged, 1 failed, best val_accuracy 0.6000 (trial 1, epoch 1)"
    )
    assert left is None  # four epochs are too few to tell


def test_a_live_panel_in_a_terminal():
    file = io.StringIO()
    with Progress(Console(file=file, width=160, force_terminal=True), Clock()) as progress:
        progress.planned(
            "small-abc", make_plan("budget.trials=4", space="\n  lr: {min: 0.1, max: 1}\n  model: small_cnn")
        )
        progress.trial_started(Trial(0, {"lr": 0.25, "model": "small_cnn"}, 1))
        progress.epoch_done(Trial(0, {"lr": 0.25, "model": "small_cnn"}, 1), 1, 0.5)
        wait_until(lambda: "epoch 1/9" in file.getvalue(), "the trial's line")
        drawn = file.getvalue().count("epoch 1/9")
        wait_until(lambda: file.getvalue().count("epoch 1/9") > drawn + 1, "the clock to go on while nothing happens")
    text = file.getvalue()
    assert "lr 0.25" in text
    assert "small_cnn" not in text  # what does not move says nothing


def wait_until(condition, what):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_what_an_earlier_driver_left_counts_from_the_start():
    file = io.StringIO()
    records = [
        TrialRecord(0, TrialState.COMPLETE, {}, 1, values={1: 0.5, 2: 0.9, 9: 0.8}),
        TrialRecord(1, TrialState.WAITING, {}, 1, values={1: 0.4}),
        TrialRecord(2, TrialState.FAILED, {}, 1, values={1: 0.99}),
    ]
    with Progress(Console(file=file, width=200), Clock()) as progress:
        progress.planned("small-abc", make_plan("budget.trials=2"), records)
        progress.trial_started(Trial(3, {}, 1))
    assert (
        file.getvalue()
        .splitlines()[-1]
        .startswith(
            "4 of 4 trials started, 1 running, 1 paused (the best of them will continue), 1 complete, 1 failed, "
            "best val_accuracy 0.9000 (trial 0, epoch 2)"
        )
    )


def test_nothing_is_estimated_before_a_trial_has_ended():
    progress = Progress(Console(file=io.StringIO()), Clock())
    progress.planned("s", make_plan())
    assert progress.seconds_left() is None
    trial = Trial(0, {}, 1)
    progress.trial_started(trial)
    progress.trial_ended(trial, Decision.of_state(TrialState.FAILED, "before its first epoch"))
    assert progress.seconds_left() is None


def test_the_clock_of_who_joins_late():
    clock = StudyClock(5.0)
    assert (clock(), clock()) == (5.0, 5.0)
    clock.run()
    assert clock() > 1e9


def test_a_value_that_looks_like_markup_is_shown_as_it_is():
    plan = make_plan("budget.trials=4")
    file = io.StringIO()
    console = Console(file=file, width=200, force_terminal=True, color_system=None)
    with Progress(console, Clock()) as progress:
        progress.planned("small-abc", plan)
        progress.trial_started(Trial(0, {"lr": 0.1, "optimizer": "[/red][bold]\x1b[2J" + "x" * 5000}, 1))
        console.print(progress._panel())
        progress.note("[/red] \x1b]0;title\x07 \x1b[2J :smile:")
    text = file.getvalue()
    assert "optimizer [/red][bold]xxx" in text
    assert "[/red]   :smile:" in text
    assert "\x1b[2J" not in text
    assert "title" not in text


def test_with_several_metrics_the_front_is_told_and_a_failed_trial_is_not_on_it():
    file = io.StringIO()
    plan = make_plan("objective.metrics=[val_accuracy, parameters]", "constraints={memory: {max: 400}}")
    with Progress(Console(file=file, width=300), Clock()) as progress:
        progress.planned("two-abc", plan)
        measured = [(0.7, 1000, 100), (0.9, 5000, 200), (0.95, 9000, 900), (0.99, 10, 10)]
        trials = [Trial(number, {}, 1) for number in range(len(measured))]
        for trial in trials:
            progress.trial_started(trial)
        assert "front" not in progress._line()
        progress.epoch_done(trials[2], 1, 0.95, {"parameters": 9000.0, "memory": 900.0})
        assert "no trial meets the constraints yet" in progress._line()
        for trial, (accuracy, parameters, memory) in zip(trials, measured, strict=True):
            progress.epoch_done(trial, 1, accuracy, {"parameters": float(parameters), "memory": float(memory)})
        # A worse epoch of the same trial is not its point.
        progress.epoch_done(trials[0], 2, 0.6, {"parameters": 1.0, "memory": 1.0})
        assert "front of 1 trial: val_accuracy 0.9900 (trial 3), parameters 10 (trial 3)" in progress._line()
        progress.trial_ended(trials[3], Decision.of_state(TrialState.FAILED, "ValueError: x"))
        assert "front of 2 trials: val_accuracy 0.9000 (trial 1), parameters 1,000 (trial 0)" in progress._line()
        # As in the result, a trial of one epoch is compared with no complete one.
        progress.trial_ended(trials[0], Decision.of_state(TrialState.COMPLETE))
        assert "front of 1 trial: val_accuracy 0.7000 (trial 0), parameters 1,000 (trial 0)" in progress._line()


def test_with_one_metric_and_a_constraint_the_best_trial_meets_it():
    with Progress(Console(file=io.StringIO(), width=300), Clock()) as progress:
        records = [
            TrialRecord(number, TrialState.COMPLETE, {}, 1, {1: value}, others={"memory": {1: memory}})
            for number, (value, memory) in enumerate([(0.9, 500.0), (0.8, 300.0)])
        ]
        progress.planned("one-abc", make_plan("constraints={memory: {max: 400}}"), records)
        assert "best val_accuracy 0.8000 (trial 1, epoch 1)" in progress._line()
