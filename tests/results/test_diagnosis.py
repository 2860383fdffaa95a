from __future__ import annotations

from dialin.lifecycle import TrialState
from dialin.results.diagnosis import diagnose
from dialin.search.records import TrialRecord
from dialin.specification.findings import Finding


def record(number, code=None, **params):
    findings = (Finding(code, 1),) if code else ()
    return TrialRecord(number, TrialState.COMPLETE, params, 1, {1: 0.5}, findings=findings)


def test_the_sick_are_counted_and_what_they_share_is_named():
    sick = [record(n, "diverged", lr=0.3 + n, momentum=0.96, width=8) for n in range(5)]
    well = [record(10 + n, lr=0.01 * (n + 1), momentum=0.5 + 0.04 * n, width=8) for n in range(10)]
    (diagnosis,) = diagnose([*sick, *well])
    assert diagnosis.trials == (0, 1, 2, 3, 4)
    assert diagnosis.common == ("lr >= 0.3", "momentum >= 0.96")
    assert diagnosis.text(15).startswith(
        "5 of 15 trials: diverged, all with lr >= 0.3 and momentum >= 0.96; try a smaller lr"
    )


def test_words_are_shared_too():
    sick = [record(n, "dead_units", optimizer="sgd", lr=0.1 * n) for n in range(3)]
    well = [record(3 + n, optimizer="adam", lr=0.1 * n) for n in range(6)]
    assert diagnose([*sick, *well])[0].common == ("optimizer sgd",)


def test_few_trials_or_no_pattern_claim_nothing():
    sick = [record(n, "overfitting", lr=0.1 * (n + 1)) for n in range(2)]
    well = [record(2 + n, lr=0.1 * (n + 1)) for n in range(6)]
    assert diagnose([*sick, *well])[0].common == ()
    sick = [record(n, "overfitting", lr=0.1 * (2 * n + 1)) for n in range(3)]
    assert diagnose([*sick, *well])[0].common == ()


def test_a_healthy_study_has_no_diagnosis():
    assert diagnose([record(0), record(1)]) == []


def test_a_large_study_is_diagnosed_in_one_pass_a_knob():
    """Comparing each sick trial with each other one, and looking for the smallest value once a trial, took 10 s for 5,000."""
    looked = 0

    class Counted(float):
        def __ge__(self, other):
            nonlocal looked
            looked += 1
            return float(self) >= other

        __lt__ = __gt__ = __le__ = __ge__

    trials = [record(n, "diverged" if n % 2 else None, lr=Counted(n)) for n in range(2000)]
    assert diagnose(trials)[0].trials == tuple(range(1, 2000, 2))
    assert looked < 10 * len(trials)
