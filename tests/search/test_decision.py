"""A decision's sentence is made of its fields; what is stored of it comes back, and so do rows of older versions."""

from __future__ import annotations

import json
import math
from typing import get_args

import pytest

from dialin.lifecycle import TrialState
from dialin.search.decision import Cause, Decision, in_short
from dialin.search.old_rows import decision_of_old_row

RANKED = Decision("pause", "rung_rank", 3, "val_accuracy", 0.1, rung=3, rank=4, of=6, quota=2)
SENTENCES = [
    (Decision("continue", "between_rungs", 2), "between rungs"),
    (Decision("continue", "reported_before", 2), "epoch 2 was reported before"),
    (Decision("continue", "rung_cutoff", 3, "m", 0.5, rung=3, of=2, cutoff=0.1), "passed rung 3"),
    (
        Decision("stop", "rung_cutoff", 3, "val_loss", 0.9, rung=3, of=2, cutoff=0.25),
        "val_loss 0.9 is above 0.25, the cutoff of rung 3 over 2 trials",
    ),
    (RANKED, "paused: val_accuracy 0.1 ranks 4 of 6 at rung 3, where the best 2 continue"),
    (
        Decision("stop", "study_ended", 3, "m", 0.1, rung=3, rank=1, of=6, quota=2, detail="budget.hours: 1 are up"),
        "m 0.1 ranks 1 of 6 at rung 3, where the best 2 continue; budget.hours: 1 are up",
    ),
    (Decision("stop", "study_ended", detail="budget.hours: 1 are up"), "the study ended: budget.hours: 1 are up"),
    (Decision("complete", "all_epochs", 9), "trained all 9 epochs"),
    (Decision("complete", "target_reached", 2, "m", 0.6, cutoff=0.5), "reached the target 0.5 after epoch 2"),
    (Decision("complete", "no_more_epochs", 4, detail="the function returned"), "the function returned"),
    (Decision("diverge", "not_finite", 2, "m", math.nan), "m was nan after epoch 2"),
    (Decision("diverge", "no_finite_value"), "no finite value was reported"),
    (Decision("diverge", "finding", 1, finding="dead_units", detail="dead units: 1.0"), "dead units: 1.0"),
    (Decision("pause", "interrupted"), "the study was interrupted"),
    (Decision("fail", "exception", detail="ValueError: {no} braces"), "ValueError: {no} braces"),
    (Decision("fail", "worker_lost", detail="its worker died 4 times"), "its worker died 4 times"),
    (Decision("fail", "unreadable", detail="no"), "the stored attributes of the trial cannot be read: no"),
    (Decision("stop", "unknown", detail="an old sentence"), "an old sentence"),
]


@pytest.mark.parametrize(("decision", "text"), SENTENCES)
def test_the_sentence_is_made_of_the_fields(decision, text):
    assert decision.text() == text
    assert decision.summary()


def test_every_cause_has_its_sentence():
    assert {decision.cause for decision, _ in SENTENCES} == set(get_args(Cause))


@pytest.mark.parametrize("decision", [decision for decision, _ in SENTENCES])
def test_what_is_stored_comes_back(decision):
    data = json.loads(json.dumps(decision.to_data(), allow_nan=False))
    assert repr(Decision.from_data(data)) == repr(decision)  # by repr: NaN equals nothing


def test_what_a_newer_version_stores_is_read_as_far_as_it_is_known():
    newer = {"action": "stop", "cause": "out_of_money", "price": 3, "detail": "the budget is spent"}
    assert Decision.from_data(newer) == Decision("stop", "unknown", detail="the budget is spent")
    with pytest.raises(ValueError, match="a decision's action is one of continue, .*, not 'jump'"):
        Decision.from_data({"action": "jump", "cause": "unknown"})


def test_only_asha_stops_early():
    assert Decision("stop", "rung_rank", rung=3).is_early_stop
    assert not Decision("stop", "study_ended", rung=3).is_early_stop
    assert not RANKED.is_early_stop


@pytest.mark.parametrize(
    ("whole", "short"),
    [
        ("front 4 of 4, rank 15 of 20 at rung 1", "front 4 of 4, rank 15 of 20 at rung 1"),
        ("the constraints on heat, size are violated, rank 9 of 20 at rung 1", "rank 9 of 20 at rung 1"),
    ],
)
def test_in_a_table_the_sentence_of_a_rung_leaves_the_values_out(whole, short):
    sentence = f"acc 0.26, size 1e+05: {whole}, where the best 7 continue"
    assert in_short(sentence) == short
    assert in_short(f"continues trial 2 after epoch 3; paused: {sentence}; its end") == (
        f"continues trial 2 after epoch 3; paused: {short}; its end"
    )
    for other in (RANKED.text(), "trained all 4 epochs", "ValueError: front: 1"):
        assert in_short(other) == other


def test_what_the_rungs_of_several_metrics_say_is_known_in_short():
    fields = {"metric": "acc", "value": 0.5, "others": {"size": 9.0}, "rung": 3, "rank": 5, "of": 6, "quota": 2}
    assert in_short(Decision("stop", "rung_rank", front=2, fronts=3, **fields).text()) == "front 2 of 3, rank 5 of 6 at rung 3"  # fmt: skip
    assert in_short(Decision("pause", "rung_rank", fronts=3, violated="size", **fields).text()) == "paused: rank 5 of 6 at rung 3"  # fmt: skip


PLACE = "val_accuracy 0.1 is place 4 of 6 at rung 3, where 2 go on"


@pytest.mark.parametrize(
    ("state", "attributes", "cause", "rung"),
    [
        ("stopped", {"reason": PLACE, "by_asha": True}, "rung_rank", 3),
        ("stopped", {"reason": PLACE}, "rung_rank", 3),
        ("stopped", {"reason": f"{PLACE}; budget.hours: 1 are up", "by_asha": False}, "study_ended", 3),
        ("stopped", {"reason": "m 0.1 is below 0.2889, the cutoff of rung 3 over 2 trials"}, "rung_cutoff", 3),
        ("stopped", {"reason": "the study ended: budget.hours: 1 are up"}, "study_ended", None),
        ("complete", {"reason": "trained all 9 epochs"}, "all_epochs", None),
        ("complete", {"reason": "reached the target 0.5 after epoch 2"}, "target_reached", None),
        ("complete", {"reason": "the function returned", "early": True}, "no_more_epochs", None),
        ("diverged", {"reason": "m was nan after epoch 2"}, "not_finite", None),
        ("diverged", {"reason": "dead units 1.0 in layer 5; try a lower lr"}, "unknown", None),
        ("failed", {"reason": "ValueError: m was nan after epoch 2"}, "exception", None),
        ("stopped", {}, "unknown", None),
    ],
)
def test_a_row_of_an_older_version_keeps_its_sentence(state, attributes, cause, rung):
    old = {f"dialin:{name}": value for name, value in attributes.items()}
    decision = decision_of_old_row(TrialState(state), old)
    assert (decision.state, decision.cause, decision.rung) == (state, cause, rung)
    assert decision.text() == attributes.get("reason", "")
    assert decision.summary()
    assert Decision.from_data(decision.to_data()) == decision or cause == "not_finite"
