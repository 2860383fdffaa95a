from __future__ import annotations

import pytest

from dialin.errors import SpecError
from dialin.planning.plan import ClusterShape, plan_study, rungs_of
from dialin.planning.seeds import seed_of_trial
from tests.factories import make_spec


@pytest.mark.parametrize(
    ("epochs", "grace", "factor", "rungs"),
    [
        (9, 1, 3, (1, 3)),
        (27, 1, 3, (1, 3, 9)),
        (52, 4, 3, (4, 12, 36)),
        (10, 10, 3, ()),
        (1, 1, 3, ()),
        (10, 1, 1.5, (1, 2, 3, 4, 6, 8)),
        (1000, 1, 10, (1, 10, 100)),
    ],
)
def test_rungs(epochs, grace, factor, rungs):
    assert rungs_of(epochs, grace, factor) == rungs


@pytest.mark.parametrize(("epochs", "first"), [(9, 1), (24, 2), (52, 4), (2, 1)])
def test_the_default_grace_is_a_twelfth(epochs, first):
    assert plan_study(make_spec(f"budget.epochs={epochs}"), ClusterShape(2)).rungs[0] == first


@pytest.mark.parametrize(
    ("overrides", "shape", "concurrency", "gpus"),
    [
        ((), ClusterShape(4), 4, 0),
        (("resources.concurrency=2",), ClusterShape(4), 2, 0),
        (("resources.concurrency=8",), ClusterShape(2), 2, 0),
        (("resources.cpus=2",), ClusterShape(5), 2, 0),
        (("budget.trials=1",), ClusterShape(8), 1, 0),
        (("objective.dataset=digits",), ClusterShape(16, 2), 2, 1),
        (("objective.dataset=digits", "resources.concurrency=4"), ClusterShape(16, 2), 4, 0.5),
        (("objective.dataset=digits", "resources.gpus=0.25"), ClusterShape(16, 1), 4, 0.25),
        (("objective.dataset=digits", "resources.gpus=0"), ClusterShape(3, 1), 3, 0),
        (("resources.concurrency=2",), ClusterShape(4, 1), 2, 0),  # the closed form has no use for a GPU
    ],
)
def test_what_a_trial_gets(overrides, shape, concurrency, gpus):
    plan = plan_study(make_spec(*overrides), shape)
    assert (plan.concurrency, plan.resources.gpus) == (concurrency, gpus)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("resources.cpus=8", "resources.cpus: a trial needs 8, and the cluster has 2"),
        ("resources.gpus=1", "resources.gpus: a trial needs 1, and the cluster has 0"),
    ],
)
def test_a_trial_that_does_not_fit_is_refused(override, message):
    with pytest.raises(SpecError) as caught:
        plan_study(make_spec(override), ClusterShape(2))
    assert str(caught.value) == message


def test_epochs_in_all():
    plan = plan_study(make_spec("budget.trials=30", "early_stopping.asha.grace_epochs=1"), ClusterShape(2))
    assert plan.most_epochs == 270
    assert plan.likely_epochs == 70  # 30 * (1 + 2/3 + 6/9)
    assert plan_study(make_spec("early_stopping=off"), ClusterShape(2)).likely_epochs == 108


def test_seeds_differ_and_stay():
    seeds = {seed_of_trial(study, number) for study in range(50) for number in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of_trial(0, 0) == 1576848291327681832  # or stored studies would go on differently


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        ("1.0000001", "early_stopping.asha.reduction_factor: 1.0000001 is below 1.1, the least"),
        ("1.1", "reduction_factor: 1.1 makes 130 rungs of 1000000 epochs; at most 50 are allowed"),
    ],
)
def test_a_plan_has_so_many_rungs_at_most(factor, says):
    overrides = (f"early_stopping.asha.reduction_factor={factor}", "budget.epochs=1000000")
    with pytest.raises(SpecError, match=says):
        plan_study(make_spec(*overrides, "early_stopping.asha.grace_epochs=1"), ClusterShape(2))
