"""The catalogue is consistent with itself."""

from __future__ import annotations

import pytest

from dialin.specification.catalogue import CATALOGUE
from dialin.specification.catalogue.values import coerce
from dialin.specification.domains import holds


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


def test_defaults_depend_on_the_optimizer():
    assert CATALOGUE["lr"].default({"optimizer": "sgd"}) == 0.1
    assert CATALOGUE["lr"].default({"optimizer": "adamw"}) == 1e-3


def test_holds():
    assert holds({}, {})
    assert holds({"a": (1, 2)}, {"a": 2})
    assert not holds({"a": (1, 2)}, {"a": 3})
    assert not holds({"a": (1,)}, {})
