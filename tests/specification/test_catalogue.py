"""The catalogue is consistent with itself."""

from __future__ import annotations

import pytest

from dialin.specification.catalogue import CATALOGUE
from dialin.specification.catalogue.knob import DATASET, EPOCHS, METRIC
from dialin.specification.catalogue.values import coerce
from dialin.specification.domains import holds
from dialin.specification.space import find_cycle


@pytest.mark.parametrize("knob", CATALOGUE.values(), ids=lambda knob: knob.name)
def test_every_row_is_whole(knob):
    assert knob.summary
    assert knob.source
    for _, value in knob.defaults:
        assert coerce(knob, value) == value
    assert knob.defaults[-1][0] == {}, "some default must always hold"
    for names in (knob.applies, *(when for when, _ in knob.defaults)):
        for other, values in names.items():
            assert set(values) <= set(CATALOGUE[other].choices)
            # What others depend on is decided before them.
            assert list(CATALOGUE).index(other) < list(CATALOGUE).index(knob.name)
    if knob.typical is not None:
        assert coerce(knob, knob.typical.low) == knob.typical.low
        assert coerce(knob, knob.typical.high) == knob.typical.high


@pytest.mark.parametrize("knob", CATALOGUE.values(), ids=lambda knob: knob.name)
def test_every_knob_has_a_value_from_which_an_expert_would_start(knob):
    start = knob.start
    assert start.source
    for _, value in knob.start_cases():
        assert coerce(knob, value) == value
    assert knob.start_cases()[-1][0] == {}, "some value must always hold"
    conditions = [when for when, _ in start.cases]
    if start.scaling is not None:
        conditions += [when for when, _ in start.scaling.exponents]
        assert start.scaling.knob in {*CATALOGUE, EPOCHS}
        assert start.scaling.reference > 0
    for when in conditions:
        for other, values in when.items():
            assert other in {METRIC, DATASET} or set(values) <= set(CATALOGUE[other].choices)
    # A choice has a next best for every space, unless the value is bad for everyone.
    assert [coerce(knob, value) for value in start.then] == list(start.then)
    if len(knob.choices) > 2:
        best = {value for _, value in knob.start_cases()}
        bad = set(knob.choices) - best - set(start.then)
        assert bad <= {"zeros", "none", "sigmoid", "softmax", "fixed", "small_cnn"}


def test_nothing_that_a_start_depends_on_depends_on_it():
    named = {
        knob.name: {other for when, _ in knob.start_cases() for other in when}
        | ({knob.start.scaling.knob} if knob.start.scaling is not None else set())
        for knob in CATALOGUE.values()
    }
    assert find_cycle(named) == []


def test_where_a_search_begins_does_not_change_what_a_knob_is_otherwise():
    assert (CATALOGUE["dropout"].default({}), CATALOGUE["dropout"].start_cases()) == (0.0, (({}, 0.1),))
    assert CATALOGUE["lr"].start_cases() == CATALOGUE["lr"].defaults


def test_defaults_depend_on_the_optimizer():
    assert CATALOGUE["lr"].default({"optimizer": "sgd"}) == 0.1
    assert CATALOGUE["lr"].default({"optimizer": "adamw"}) == 1e-3


def test_holds():
    assert holds({}, {})
    assert holds({"a": (1, 2)}, {"a": 2})
    assert not holds({"a": (1, 2)}, {"a": 3})
    assert not holds({"a": (1,)}, {})
