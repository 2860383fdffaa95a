"""The driver's decisions about a whole study, with a real Study and a publisher that only remembers."""

from __future__ import annotations

import math

import optuna
import pytest

from dialin.events.types import EpochReported, TrialDecided, TrialEnded
from dialin.lifecycle import TrialState
from dialin.search.records import Report
from dialin.search.study import Study
from dialin.specification.findings import Finding
from dialin.study_flow.driver import LAST_WORD_SECONDS, STARVED_SECONDS, DriverControl, StudyDriver
from dialin.study_flow.signals import Interrupts
from tests.factories import make_plan


class Published:
    """Stands for the publisher: keeps the events and the notes."""

    def __init__(self):
        self.events, self.notes = [], []

    def publish(self, *events):
        self.events += events

    def note(self, text):
        self.notes.append(text)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def ends(self):
        return [(event.trial, event.state, event.reason) for event in self.of(TrialEnded)]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def make_driver(tmp_path):
    def make(*overrides, clock=None, **control):
        plan = make_plan("early_stopping=off", *overrides)
        study = Study.open(plan, optuna.storages.InMemoryStorage(), "s")
        published = Published()
        driver = StudyDriver(plan, study, published, tmp_path, Interrupts(), DriverControl(**control), clock or Clock())
        return driver, study, published

    return make


def metrics(value, **others):
    return {"val_accuracy": value, "train_loss": 0.5, **others}


def test_a_trial_is_stored_and_published(make_driver):
    driver, study, published = make_driver()
    trial = driver.ask()
    for epoch in range(1, 10):
        decision = driver.report(trial, [Report(epoch, metrics(epoch / 10), "/c/9" if epoch == 9 else None)])
    assert not decision.continues
    assert study.best().checkpoint == "/c/9"
    assert [event.kind for event in published.events] == [
        "trial_started",
        *["epoch", "decision"] * 9,
        "trial_ended",
    ]
    assert published.ends() == [(0, "complete", "trained all 9 epochs")]
    assert published.events[-1].tags == {}
    assert [event.value for event in published.of(EpochReported)] == [epoch / 10 for epoch in range(1, 10)]
    assert [event.decision.continues for event in published.of(TrialDecided)] == [True] * 8 + [False]


def test_a_report_of_many_epochs_is_one_write(make_driver):
    driver, _, published = make_driver()
    trial = driver.ask()
    writes = []
    published.publish = lambda *events: writes.append([event.kind for event in events])
    driver.report(trial, [Report(epoch, metrics(0.5)) for epoch in (1, 2)])
    assert writes == [["epoch", "decision"] * 2]


def test_a_trial_that_trains_epochs_again_is_told_of_once(make_driver):
    driver, _, published = make_driver()
    first = driver.ask()
    driver.report(first, [Report(epoch, metrics(0.1), f"0000/epoch-{epoch:04d}") for epoch in (1, 2, 3)])
    driver.report_lost_worker(first, "killed")
    again = driver.ask()
    assert again.epochs_done == 3
    driver.report(again, [Report(1, metrics(0.1), None)])
    driver.report(again, [Report(2, metrics(0.1), None)])
    notes = [text for text in published.notes if "trains again" in text]
    assert notes == ["trial 0 trains again from epoch 1, of 3 that it had reported: no checkpoint of it is left"]


def test_the_last_trials_end_is_announced(make_driver):
    announced = []
    driver, _, _ = make_driver("budget.trials=3", "budget.epochs=1", last_trial_ended=lambda: announced.append("ended"))
    first, second = driver.ask(), driver.ask()
    driver.report(first, [Report(1, metrics(0.5), None)])
    third = driver.ask()
    driver.report(second, [Report(1, metrics(0.5), None)])
    assert announced == []
    driver.report(third, [Report(1, metrics(0.5), None)])
    assert announced == ["ended"]


def test_epochs_reported_together_end_with_the_first_that_stops(make_driver):
    announced = []
    driver, study, published = make_driver("budget.target=0.9", last_trial_ended=lambda: announced.append("ended"))
    trial = driver.ask()
    reports = [Report(epoch, metrics(value)) for epoch, value in enumerate([0.1, 0.2, 0.95, 0.99], 1)]
    assert driver.report(trial, reports).text() == "reached the target 0.9 after epoch 3"
    assert study.trials()[0].values == {1: 0.1, 2: 0.2, 3: 0.95}
    assert [event.epoch for event in published.of(EpochReported)] == [1, 2, 3]
    assert published.events[-1].kind == "trial_ended"
    assert announced == ["ended"]


def test_an_end_is_published_only_when_it_is_stored(make_driver, monkeypatch):
    driver, study, published = make_driver()
    trial = driver.ask()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(study, "tell", fail)
    with pytest.raises(OSError, match="no space"):
        driver.report(trial, [Report(epoch, metrics(0.5)) for epoch in range(1, 10)])
    assert published.ends() == []


def test_any_metric_that_is_not_finite_is_a_divergence(make_driver):
    driver, study, published = make_driver()
    trial = driver.ask()
    decision = driver.report(trial, [Report(1, metrics(0.1, train_loss=math.nan))])
    assert (decision.state, decision.text()) == (TrialState.DIVERGED, "train_loss was nan after epoch 1")
    record = study.trials()[0]
    assert (record.state, record.reason) == (TrialState.DIVERGED, "train_loss was nan after epoch 1")
    assert study.best() is None
    (event,) = published.of(EpochReported)
    assert (event.metrics["val_accuracy"], event.value) == (0.1, None)


def test_a_failure_keeps_its_last_line_and_its_log(make_driver, tmp_path):
    driver, study, published = make_driver()
    driver.fail(driver.ask(), "Traceback ...\n  File x\nValueError: width 0\n\n")
    log = tmp_path / "trial-0000.log"
    assert study.trials()[0].reason == "ValueError: width 0"
    assert log.read_text().startswith("Traceback")
    assert published.ends()[0][1] == "failed"


def test_too_many_failures_end_the_study_with_their_cause(make_driver):
    driver, _, _ = make_driver("budget.failures=2")
    for reason in ("ValueError: a", "ValueError: a", "OSError: b"):
        assert driver.broken is None
        driver.fail(driver.ask(), reason)
    assert driver.broken == "3 of 3 trials failed, 2 of them with: ValueError: a (budget.failures: 2)"
    assert driver.ask() is None


def test_trials_that_all_fail_alike_before_any_has_reported_end_the_study(make_driver):
    driver, _, _ = make_driver()
    for number in range(3):
        assert driver.broken is None
        driver.fail(driver.ask(), f"OSError: no file at 0x{number}f after {number}.5 s")
    assert driver.broken == (
        "3 of 3 trials failed: OSError: no file at 0x0f after 0.5 s (none had reported an epoch, so no more were tried)"
    )
    assert driver.ask() is None


@pytest.mark.parametrize("first", ["a report", "another cause"])
def test_trials_that_fail_otherwise_go_on_to_the_budgets_failures(make_driver, first):
    driver, _, _ = make_driver()
    if first == "a report":
        driver.report(driver.ask(), [Report(1, metrics(0.5))])
    else:
        driver.fail(driver.ask(), "ValueError: b")
    for _ in range(5):
        driver.fail(driver.ask(), "ValueError: a")
    assert driver.broken is None


def test_what_had_reported_before_a_resume_counts(make_driver, tmp_path):
    _, study, _ = make_driver()
    study.report(study.ask(), 1, 0.5)
    driver = StudyDriver(make_plan("early_stopping=off"), study, Published(), tmp_path, Interrupts(), clock=Clock())
    for _ in range(4):
        driver.fail(driver.ask(), "ValueError: a")
    assert driver.broken is None


def test_a_failure_of_any_text_is_one_line_that_can_be_stored(make_driver, tmp_path):
    driver, study, published = make_driver()
    driver.fail(driver.ask(), "ValueError: \x1b[31mred\udcff\0 " + "x" * 3_000_000)
    reason = study.trials()[0].reason
    assert reason.startswith(r"ValueError: red\udcff\x00 xx")
    assert "characters cut" in reason
    assert len(reason) <= 1000
    assert published.ends()[0][2] == reason
    assert (tmp_path / "trial-0000.log").stat().st_size < 300_000


def test_the_target_ends_the_study_and_stops_the_others(make_driver):
    driver, study, _ = make_driver("budget.target=0.9")
    first, second = driver.ask(), driver.ask()
    assert driver.report(first, [Report(1, metrics(0.95))]).state is TrialState.COMPLETE
    decision = driver.report(second, [Report(1, metrics(0.5))])
    assert (decision.state, decision.text()) == (
        TrialState.STOPPED,
        "the study ended: budget.target: 0.9 was reached by trial 0",
    )
    assert driver.ask() is None
    assert study.best().number == 0


def test_the_hours_end_the_study(make_driver):
    clock = Clock()
    driver, study, _ = make_driver("budget.hours=1", clock=clock)
    trial = driver.ask()
    clock.now = 3599.0
    assert driver.report(trial, [Report(1, metrics(0.5))]).continues
    clock.now = 3600.0
    assert driver.report(trial, [Report(2, metrics(0.5))]).text() == "the study ended: budget.hours: 1 are up"
    assert driver.ask() is None
    assert study.trials()[0].state is TrialState.STOPPED


def test_the_hours_cut_off_what_never_reports(make_driver):
    clock = Clock()
    driver, study, published = make_driver("budget.hours=1", clock=clock)
    first, _ = driver.ask(), driver.ask()
    driver.report_working(first)
    driver.report(first, [Report(1, metrics(0.5))])
    clock.now = 3600.0
    assert not driver.is_cut_off  # a trial that is about to report is heard
    clock.now = 3600.0 + LAST_WORD_SECONDS
    assert driver.is_cut_off
    driver.finish()
    assert [(record.state, record.reason) for record in study.trials()] == [
        (TrialState.STOPPED, "the study ended: budget.hours: 1 are up")
    ] * 2
    assert [end[:2] for end in published.ends()] == [(0, "stopped"), (1, "stopped")]
    assert driver.finished


def test_a_trial_that_is_at_an_epoch_for_too_long_is_overdue(make_driver):
    clock = Clock()
    driver, study, published = make_driver("budget.epoch_minutes=2", clock=clock)
    first, second, third = driver.ask(), driver.ask(), driver.ask()
    driver.report_working(first)
    driver.report_working(second)
    clock.now = 60.0
    driver.report(first, [Report(1, metrics(0.5)), Report(2, metrics(0.6))])
    clock.now = 121.0
    text = "epoch 1 was not reported within 2.02 min, and the limit is 2 min (budget.epoch_minutes)"
    assert driver.find_overdue() == [(second, text)]  # the third still waits for a worker
    driver.fail(second, text)
    assert study.trials()[1].state is TrialState.FAILED
    assert study.trials()[1].reason.startswith(text)
    assert [end[:2] for end in published.ends()] == [(1, "failed")]
    driver.report_lost_worker(first, "its node is gone")
    driver.report_working(third)
    clock.now = 240.0
    assert driver.find_overdue() == []
    clock.now = 242.0
    assert [trial for trial, _ in driver.find_overdue()] == [third]


def test_a_study_whose_trials_all_wait_for_a_worker_says_so(make_driver):
    clock, said = Clock(), []
    driver, _, _ = make_driver(clock=clock, starved=said.append)
    driver.report_progress()
    first, second = driver.ask(), driver.ask()
    for clock.now in (0.0, STARVED_SECONDS - 1):
        driver.report_progress()
    assert said == []
    clock.now = STARVED_SECONDS
    driver.report_progress()
    driver.report_progress()
    assert said == [True]
    driver.report_working(second)
    driver.report_progress()
    assert said == [True, False]
    driver.report_lost_worker(second, "its node is gone")
    driver.report_progress()
    clock.now += STARVED_SECONDS
    driver.report_progress()
    assert said == [True, False, True]
    driver.fail(first, "x")
    driver.report_progress()
    assert said[-1] is False  # nothing is under way


def test_an_interrupt_puts_trials_back(make_driver):
    driver, study, published = make_driver()
    trial = driver.ask()
    driver.report(trial, [Report(1, metrics(0.5))])
    driver.interrupt()
    assert study.trials()[0].state is TrialState.WAITING
    assert published.ends() == [(0, "interrupted", "the study was interrupted")]


@pytest.mark.parametrize(
    ("doctor", "code", "state"),
    [
        ("stop", "dead_network", TrialState.DIVERGED),
        ("warn", "dead_network", None),
        ("stop", "overfitting", None),
    ],
)
def test_the_doctor_stops_what_cannot_recover(make_driver, doctor, code, state):
    driver, study, published = make_driver(f"early_stopping.doctor={doctor}", "early_stopping.asha.grace_epochs=3")
    trial = driver.ask()
    finding = Finding(code, 1, {"dead units": 1.0}, "layer 5")
    decision = driver.report(trial, [Report(1, metrics(0.1), None, (finding,))])
    assert decision.continues is (state is None)
    record = study.trials()[0]
    assert record.findings == (finding,)
    if state is not None:
        assert record.state is state
        assert record.reason.startswith("dead_network in layer 5 after epoch 1: dead units 1; try a smaller lr")
        assert list(published.of(TrialEnded)[0].tags) == ["dialin.finding.dead_network"]
