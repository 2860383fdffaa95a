"""The best trial: by what several epochs say, not by the luckiest one."""

from __future__ import annotations

import random
import statistics

import pytest

from dialin.lifecycle import TrialState
from dialin.search.decision import Decision
from dialin.search.incumbent import estimate, incumbent_of
from dialin.search.ranking import best_of
from dialin.search.records import TrialRecord
from tests.factories import make_spec

SPEC = make_spec()


def trial(number, values, state=TrialState.COMPLETE, **fields):
    by_epoch = dict(enumerate(values, 1)) if not isinstance(values, dict) else values
    return TrialRecord(number, state, {}, 0, values=by_epoch, **fields)


STEADY = [0.80, 0.90, 0.94, 0.95, 0.955, 0.96, 0.96, 0.962, 0.961]
LUCKY = [0.80, 0.86, 0.90, 0.88, 0.91, 0.975, 0.89, 0.92, 0.90]


def test_the_luckiest_epoch_of_a_poor_trial_does_not_win():
    records = [trial(0, LUCKY), trial(1, STEADY), trial(2, [value - 0.02 for value in STEADY])]
    assert best_of(records, "max").number == 0
    found = incumbent_of(records, SPEC)
    assert (found.record.number, found.peak) == (1, (0.962, 8))
    assert 0.955 < found.expected <= 0.962


def test_a_loss_is_minimized():
    spec = make_spec("objective.metric=val_loss", "objective.mode=min")
    records = [trial(0, [1 - value for value in LUCKY]), trial(1, [1 - value for value in STEADY])]
    assert incumbent_of(records, spec).record.number == 1


def noisy_study(seed, trials=40, epochs=9):
    """Trials with a level each and epochs that scatter by a deviation of their own: (records, levels)."""
    generator = random.Random(seed)
    levels = [generator.gauss(0, 1) for _ in range(trials)]
    records = []
    for number, level in enumerate(levels):
        noise = 0.5 * generator.lognormvariate(0, 0.6)
        curve = [level - 3 * 0.65**epoch + generator.gauss(0, noise) for epoch in range(1, epochs + 1)]
        records.append(trial(number, curve))
    return records, levels


def test_over_many_studies_the_chosen_trials_are_better_than_the_luckiest_and_what_is_said_is_nearer_to_the_truth():
    chosen, luckiest, said, printed = [], [], [], []
    for seed in range(60):
        records, levels = noisy_study(seed)
        found, lucky = incumbent_of(records, SPEC), best_of(records, "max")
        chosen.append(levels[found.record.number])
        luckiest.append(levels[lucky.number])
        said.append(found.expected - levels[found.record.number])
        printed.append(max(lucky.values.values()) - levels[lucky.number])
    assert statistics.fmean(chosen) > statistics.fmean(luckiest) + 0.2
    assert abs(statistics.fmean(said)) < 0.5 * statistics.fmean(printed)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_without_noise_the_best_value_wins_whenever_it_was_reached(mode):
    sign = 1 if mode == "max" else -1
    late = [sign * 0.1 * epoch for epoch in range(1, 10)]
    early = [sign * min(0.85, 0.3 * epoch) for epoch in range(1, 10)]
    spec = SPEC if mode == "max" else make_spec("objective.metric=val_loss", "objective.mode=min")
    found = incumbent_of([trial(0, early), trial(1, late)], spec)
    assert found.record.number == 1
    assert found.expected == pytest.approx(found.peak.value)


def test_the_drop_of_a_learning_rate_is_not_luck():
    stepped = [0.7] * 8 + [0.9]
    assert estimate(stepped, maximize=True) == (0.9, 0.0)
    assert incumbent_of([trial(0, [0.85] * 9), trial(1, stepped)], SPEC).record.number == 1


def test_with_few_epochs_it_is_the_order_of_the_ranking():
    records = [trial(0, [0.1, 0.95, 0.1, 0.2]), trial(1, [0.9, 0.9, 0.9, 0.9])]
    found = incumbent_of(records, SPEC)
    assert (found.record.number, found.expected) == (0, None)


def test_while_no_trial_is_complete_it_is_the_order_of_the_ranking():
    records = [trial(0, LUCKY, TrialState.STOPPED), trial(1, STEADY, TrialState.RUNNING)]
    found = incumbent_of(records, SPEC)
    assert (found.record.number, found.peak.value, found.expected) == (0, 0.975, None)
    assert incumbent_of(records, SPEC, complete_only=True) is None
    assert incumbent_of([], SPEC) is None
    assert incumbent_of([trial(0, [float("nan")])], SPEC) is None


def test_the_choice_of_older_versions():
    records = [trial(0, LUCKY), trial(1, STEADY)]
    found = incumbent_of(records, SPEC, luckiest=True)
    assert (found.record.number, found.expected) == (0, None)


def test_a_trial_that_reached_the_target_counts_with_that_value():
    reached = Decision("complete", "target_reached", 6, "val_accuracy", 0.975, cutoff=0.97)
    records = [trial(0, LUCKY[:6], decision=reached), trial(1, STEADY)]
    assert incumbent_of(records, SPEC).record.number == 0


def test_a_trial_that_continues_another_is_judged_by_the_whole_training():
    whole = dict(enumerate(STEADY, 1))
    first = trial(0, {epoch: whole[epoch] for epoch in range(1, 7)})
    second = trial(1, {epoch: whole[epoch] for epoch in (7, 8, 9)}, continues=0, began=6)
    alone = incumbent_of([trial(1, whole)], SPEC)
    assert incumbent_of([first, second], SPEC).record.number == 1
    assert incumbent_of([first, second], SPEC).expected == alone.expected


def test_of_equal_estimates_the_order_of_the_ranking_decides():
    records = [trial(0, STEADY, metrics={"val_loss": 0.3}), trial(1, STEADY, metrics={"val_loss": 0.2})]
    assert incumbent_of(records, SPEC).record.number == 1
    assert incumbent_of(records[::-1], SPEC).record.number == 1


def test_differences_that_a_small_validation_split_explains_are_shrunk():
    """Of 100 images one is 0.01: trials that differ by it are as good as equal."""
    records = [trial(number, [0.9 + 0.01 * (number % 2)] * 9) for number in range(10)]
    mean = 0.905
    assert incumbent_of(records, SPEC).expected == pytest.approx(mean)
    large = [trial(number, [0.9 + 0.00001 * round(1000 * (number % 2) + 7 * number)] * 9) for number in range(10)]
    assert incumbent_of(large, SPEC).expected > 0.909
