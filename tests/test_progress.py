"""What a terminal and a file get to see."""

from __future__ import annotations

import io
import math

from rich.console import Console

from service.progress import Progress, StudyClock
from service.search.records import Outcome, State, Trial
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
        progress.trial_ended(other, Outcome(State.DIVERGED, "nan"))
        progress.epoch_done(trial, 2, 0.55)
        progress.trial_ended(trial, Outcome(State.FAILED, "ValueError: x"))
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
        "2/4 trials, 0 running, 1 diverged, 1 failed, best val_accuracy 0.6000 (trial 1, epoch 1)"
    )
    assert left > 0


def test_a_live_panel_in_a_terminal():
    file = io.StringIO()
    play(Console(file=file, width=120, force_terminal=True))
    text = file.getvalue()
    assert "trial 0" in text
    assert "epoch 1/9" in text
    assert "optimizer sgd" in text


def test_nothing_is_estimated_before_a_trial_has_ended():
    progress = Progress(Console(file=io.StringIO()), Clock())
    progress.planned("s", make_plan())
    assert progress.seconds_left() is None
    trial = Trial(0, {}, 1)
    progress.trial_started(trial)
    progress.trial_ended(trial, Outcome(State.FAILED, "before its first epoch"))
    assert progress.seconds_left() is None


def test_the_clock_of_who_joins_late():
    clock = StudyClock(5.0)
    assert (clock(), clock()) == (5.0, 5.0)
    clock.run()
    assert clock() > 1e9
