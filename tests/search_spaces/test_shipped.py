from __future__ import annotations

import pytest

from dialin.lifecycle import TrialState
from dialin.planning.plan import ClusterShape, plan_study
from dialin.results.claims import FEWEST, judge
from dialin.search.models.encoding import Encoding
from dialin.search.records import TrialRecord
from dialin.specification import active_params, load_spec, searched, shipped


def test_names():
    assert {"digits", "fashion_mnist", "cifar10", "synthetic"} <= set(shipped.names())
    with pytest.raises(KeyError):
        shipped.read("../pyproject")


@pytest.mark.parametrize("name", shipped.names())
def test_every_shipped_space_plans_on_a_small_machine(name):
    spec = load_spec(name)
    assert searched(spec)
    assert plan_study(spec, ClusterShape(cpus=2)).concurrency >= 1


def test_cifar10_is_the_resnet():
    assert load_spec("cifar10").space["model"].value == "resnet18"


@pytest.mark.parametrize("name", [name for name in shipped.names() if name.startswith("articles/")])
def test_every_claim_gets_enough_trials_a_side_to_be_judged(name):
    spec = load_spec(name)
    combinations = list(Encoding(spec, None).all())
    chosen = [combinations[number % len(combinations)] for number in range(spec.budget.trials)]
    records = [
        TrialRecord(
            number, TrialState.COMPLETE, active_params(spec, one), number, {1: 0.5}, metrics={"zero_activations": 0.5}
        )
        for number, one in enumerate(chosen)
    ]
    outcome = judge(spec, spec.claim, records)
    assert min(len(outcome.better), len(outcome.than)) >= FEWEST
