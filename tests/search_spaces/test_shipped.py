from __future__ import annotations

import pytest

import search_spaces
from service.planning import ClusterShape, plan_study
from service.spec import load_spec, searched


def test_names():
    assert {"digits", "fashion_mnist", "cifar10", "synthetic"} <= set(search_spaces.names())
    with pytest.raises(KeyError):
        search_spaces.read("../pyproject")


@pytest.mark.parametrize("name", search_spaces.names())
def test_every_shipped_space_plans_on_a_small_machine(name):
    spec = load_spec(name)
    assert searched(spec)
    assert plan_study(spec, ClusterShape(cpus=2)).concurrency >= 1


def test_cifar10_is_the_resnet():
    assert load_spec("cifar10").space["model"].value == "resnet18"
