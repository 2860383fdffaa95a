"""A sampler is one file and one line in a table."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import optuna
import pytest

from dialin.search.decision import Decision
from dialin.search.models.encoding import Encoding
from dialin.search.samplers import SAMPLERS, Sampler, make_sampler
from dialin.search.study import Study
from dialin.specification.study_spec import SearchSpec
from tests.factories import make_plan


class MiddleSampler(Sampler):
    """Suggests the middle of every range, then points that move away from it; two at a time."""

    def __init__(self, plan, encoding, others=()):
        self.encoding, self.others, self.batches = encoding, others, 0

    def suggest(self, number, observations, tried, attempt=0):
        return self._at(number)

    def suggest_batch(self, first, count):
        self.batches += 1
        return [self._at(100 + self.batches)][:count]

    def _at(self, number):
        return self.encoding.decode([0.5 + number / 1000] * len(self.encoding.names))


def plan_with(sampler):
    """A plan whose sampler a specification does not know."""
    plan = make_plan("budget.trials=5", "early_stopping=off")
    search = plan.spec.search.model_copy(update={"sampler": sampler})
    return replace(plan, spec=plan.spec.model_copy(update={"search": search}))


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_new_sampler_is_a_line_in_the_table(monkeypatch, prefetch):
    monkeypatch.setitem(SAMPLERS, "middle", f"{__name__}:MiddleSampler")
    study = Study.open(plan_with("middle"), optuna.storages.InMemoryStorage(), "s", prefetch=prefetch)
    rates = []
    while (trial := study.ask()) is not None:
        rates.append(trial.params["lr"])
        study.report(trial, 1, 0.5)
        study.tell(trial, Decision("stop", "study_ended", detail="enough"))
    study.close()
    assert rates[0] == pytest.approx(1e-2)  # the middle between 1e-4 and 1, on a log scale
    assert len(set(rates)) == 5


def test_the_table_has_the_samplers_of_a_specification():
    allowed = get_args(SearchSpec.model_fields["sampler"].annotation)
    assert set(SAMPLERS) == set(allowed) - {"auto"}


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "grid"])
def test_every_sampler_depends_on_nothing_but_its_arguments(name):
    plan = make_plan(f"search.sampler={name}", "search.seed=3")

    def suggest():
        sampler = make_sampler(name, plan, Encoding(plan.spec), ())
        first = sampler.suggest(0, {}, set())
        return [first, sampler.suggest(0, {}, set(), 1), *sampler.suggest_batch(first, 3)]

    assert suggest() == suggest()
