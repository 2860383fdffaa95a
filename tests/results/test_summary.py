from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from dialin.lifecycle import TrialState
from dialin.results.export import best_config
from dialin.results.leaderboard import describe
from dialin.results.looks import Look
from dialin.results.summary import Spent, count_epochs, epochs_text, find_best, is_of_luckiest, summarize
from dialin.search.decision import Decision
from dialin.search.records import TrialRecord
from dialin.specification import parse_spec
from tests.factories import make_spec

PARAMS = {"optimizer": "adam", "lr": 0.003, "batch_size": 32}
RECORDS = [
    TrialRecord(0, TrialState.COMPLETE, PARAMS, 7, dict.fromkeys(range(1, 10), 0.8)),
    TrialRecord(1, TrialState.COMPLETE, PARAMS, 8, {**dict.fromkeys(range(1, 10), 0.85), 4: 0.9}),
    TrialRecord(2, TrialState.STOPPED, PARAMS, 9, {1: 0.95}),
    TrialRecord(3, TrialState.DIVERGED, PARAMS, 9, {1: 0.99, 2: math.nan}),
    TrialRecord(4, TrialState.FAILED, PARAMS, 9, {}),
]


def test_the_best_is_a_complete_trial_at_its_best_epoch():
    best = find_best(make_spec(), RECORDS)
    assert (best.trial, best.value, best.epoch, best.params) == (1, 0.9, 4, PARAMS)


def test_minimizing():
    spec = make_spec("objective.metric=val_loss", "objective.mode=min")
    assert find_best(spec, RECORDS).trial == 0


def test_while_none_is_complete_the_best_so_far_counts():
    assert find_best(make_spec(), RECORDS[2:]).trial == 2
    assert find_best(make_spec(), RECORDS[3:]).trial == 3
    assert find_best(make_spec(), RECORDS[4:]) is None


def test_a_failed_trial_is_not_the_best_configuration():
    failed = TrialRecord(0, TrialState.FAILED, PARAMS, 7, {1: 0.8, 2: 0.9})
    assert find_best(make_spec(), [failed]) is None


def test_the_object_for_machines():
    result = summarize(
        make_spec(),
        "small-abc",
        "complete",
        RECORDS,
        looks=[Look(1, {"accuracy": 0.88, "loss": 0.4})],
        spent=Spent(seconds=1.23456),
    )
    data = json.loads(json.dumps(result.to_data()))
    assert list(data) == [
        "study_id",
        "state",
        "metric",
        "mode",
        "best",
        "test",
        "test_trial",
        "test_looks",
        "trials",
        "epochs",
        "seconds",
        "paths",
    ]
    assert data["best"] == {"trial": 1, "value": 0.9, "epoch": 4, "params": PARAMS, "expected": 0.9}
    assert data["trials"] == {"complete": 2, "stopped": 1, "diverged": 1, "failed": 1}
    assert data["test"] == {"accuracy": 0.88, "loss": 0.4}
    assert data["test_trial"] == 1
    assert data["epochs"] == {
        "trained": 21, "repeated": 0, "range_tests": 0.0, "full": 45, "saved": 8, "saved_share": 0.2759,
    }  # fmt: skip
    assert data["seconds"] == 1.235


def test_the_best_configuration_is_a_specification_of_that_one_trial():
    spec = make_spec("budget.target=0.99")
    result = summarize(spec, "small-abc", "complete", RECORDS, looks=[Look(1, {"accuracy": 0.88})])
    text = best_config(spec, RECORDS[1], result)
    assert text.startswith(
        "# Best of study small-abc: trial 1, val_accuracy 0.9, epoch 4.\n# On the test split (the only look): accuracy 0.88."
    )
    again = parse_spec(text)
    assert {name: domain.value for name, domain in again.space.items()} == PARAMS
    assert (again.search.trial_seed, again.budget.trials, again.budget.epochs) == (8, 1, 9)
    assert (again.early_stopping.asha, again.budget.target) == (None, None)
    assert again.objective == spec.objective


def test_a_test_score_is_shown_only_beside_the_trial_that_was_tested():
    found = summarize(make_spec(), "small-abc", "running", RECORDS, looks=[Look(0, {"accuracy": 0.88})])
    assert (found.best.trial, found.test, found.test_trial, found.test_count) == (1, None, None, "")
    assert "0.88" not in best_config(make_spec(), RECORDS[1], found)
    assert "0.88" not in describe(found, RECORDS)
    assert found.to_data()["test_looks"] == [{"trial": 0, "values": {"accuracy": 0.88}}]


WAITED = [TrialRecord(n, TrialState.WAITING, PARAMS, n, {1: 0.5}) for n in range(3)]
ENDED = [replace(record, state=TrialState.STOPPED, decision=Decision("stop", "rung_rank")) for record in WAITED]


@pytest.mark.parametrize(
    ("records", "overrides", "range_tests", "saved", "text"),
    [
        (ENDED, (), 0.0, 24, "3 of 27, 89% saved by stopping early"),
        (ENDED, (), 9.0, 24, "3 of 27, and 9 in range tests, 67% saved by stopping early"),
        ([replace(ENDED[0], repeated=7)], (), 0.0, 8, "1 of 9, and 7 repeated after a crash, 50% saved by stopping early"),
        (WAITED, (), 0.0, 0, "3 of 27"),
        ([replace(record, state=TrialState.DIVERGED) for record in WAITED], (), 0.0, 0, "3 of 27"),
        ([replace(record, state=TrialState.FAILED) for record in WAITED], (), 0.0, 0, "3 of 27"),
        ([replace(record, state=TrialState.COMPLETE, decision=Decision("complete", "no_more_epochs")) for record in WAITED], (), 0.0, 0, "3 of 27"),
        ([replace(record, decision=Decision("stop", "study_ended")) for record in ENDED], (), 0.0, 0, "3 of 27"),
        ([replace(record, decision=Decision("stop", "unknown")) for record in ENDED], (), 0.0, 24, "3 of 27, 89% saved by stopping early"),
        ([replace(ENDED[0], decision=Decision("stop", "unknown"), values={1: 0.5, 2: 0.5})], (), 0.0, 0, "2 of 9"),
        ([replace(ENDED[0], decision=Decision("stop", "unknown"))], ("early_stopping.asha=off",), 0.0, 0, "1 of 9"),
        ([], (), 0.0, 0, "0 of 0"),
    ],
    ids=["asha", "range tests", "repeated", "waiting", "diverged", "failed", "returned", "the study's end", "older",
         "older, between rungs", "older, without", "none"],
)  # fmt: skip
def test_saved_is_only_what_early_stopping_spared(records, overrides, range_tests, saved, text):
    counted = count_epochs(make_spec(*overrides), records, range_tests)
    assert counted["saved"] == saved
    assert epochs_text(counted) == text


LUCKY = [0.80, 0.86, 0.90, 0.88, 0.91, 0.975, 0.89, 0.92, 0.90]
STEADY = [0.80, 0.90, 0.94, 0.95, 0.955, 0.96, 0.96, 0.962, 0.961]


def noisy_records():
    """A poor trial with one lucky epoch, then a better one."""
    return [
        TrialRecord(number, TrialState.COMPLETE, PARAMS, 7, values=dict(enumerate(values, 1)))
        for number, values in enumerate((LUCKY, STEADY))
    ]


def test_the_best_trial_is_not_the_one_with_the_luckiest_epoch_and_what_is_expected_is_said():
    result = summarize(make_spec(), "small-abc", "complete", noisy_records())
    assert (result.best.trial, result.best.value, result.best.epoch) == (1, 0.962, 8)
    assert result.best.value_text() == "0.9610 expected (0.9620 at its luckiest epoch, 8)"
    text = best_config(make_spec(), noisy_records()[1], result)
    assert (
        "# Of the complete trials it has the best estimate: val_accuracy 0.9610 expected "
        "(0.9620 at its luckiest epoch, 8).\n" in text
    )
    note = describe(result, noisy_records())
    assert (
        "Trial 1 is the best by its estimate: val_accuracy 0.9610 expected (0.9620 at its luckiest epoch, 8)." in note
    )
    assert note.index("| 0 | 0.9750") < note.index("| **1** | 0.9620")


def test_a_study_that_an_older_version_ended_keeps_its_answer():
    stored = summarize(make_spec(), "small-abc", "complete", noisy_records(), luckiest=True).to_data()
    assert (stored["best"]["trial"], stored["best"]["expected"]) == (0, None)
    assert not is_of_luckiest(stored)
    del stored["best"]["expected"]
    assert is_of_luckiest(stored)
    assert not is_of_luckiest({})
    assert not is_of_luckiest({"best": None})
