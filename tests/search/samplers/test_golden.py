"""The same seed gives the same trials as in the versions whose figures are published (from commit 5fd7f13 on).

`golden.json` holds the learning rate and the optimizer of each trial. The model of learning curves is compared only as
far as its Sobol sequence: what it suggests later depends on the last bits of a matrix factorization, which differ between
processors.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import optuna
import pytest

from dialin.search.study import Study
from tests.factories import make_plan

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.mark.parametrize("sampler", list(GOLDEN))
def test_the_same_seed_gives_the_trials_that_it_gave(sampler):
    expected = GOLDEN[sampler]
    # Half of the budget comes from the Sobol sequence; with a prior some of these trials would come from that.
    plan = make_plan(
        f"search.sampler={sampler}",
        "search.seed=3",
        "prior=off",
        "early_stopping=off",
        f"budget.trials={2 * len(expected)}",
    )
    study = Study.open(plan, optuna.storages.InMemoryStorage(), "golden")
    found = []
    while len(found) < len(expected) and (trial := study.ask()) is not None:
        found.append([trial.params["lr"], trial.params["optimizer"]])
        top = 1 - abs(math.log10(trial.params["lr"]) + 2) / 4
        for epoch in range(1, 10):
            decision = study.report(trial, epoch, top * epoch / 9)
        study.tell(trial, decision)
    assert [optimizer for _, optimizer in found] == [optimizer for _, optimizer in expected]
    assert [lr for lr, _ in found] == pytest.approx([lr for lr, _ in expected], rel=1e-9)
