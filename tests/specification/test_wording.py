"""Domains, conditions and centres in words."""

from __future__ import annotations

import pytest

from dialin.specification.catalogue import CATALOGUE
from dialin.specification.catalogue.knob import Scaling
from dialin.specification.domains import FloatRange, IntRange, RangeTested
from dialin.specification.wording import cases_text, centre_text, goals_text, spread_text, start_text

SGD = {"optimizer": ("sgd", "nesterov")}


@pytest.mark.parametrize(
    ("cases", "text"),
    [
        ((({}, 0.1),), "0.1"),
        (((SGD, 0.1), ({}, 1e-3)), "0.1 where optimizer is sgd or nesterov, else 0.001"),
        ((({**SGD, "nesterov": (True,)}, 1 / 3),), "0.3333 where optimizer is sgd or nesterov and nesterov is true"),
        ((({}, True),), "true"),
    ],
)
def test_the_text_of_values_with_conditions(cases, text):
    assert cases_text(cases) == text


@pytest.mark.parametrize(
    ("cases", "exponents", "text"),
    [
        ((({}, 0.1),), (({}, 1.0),), "0.1 at batch_size 128; in proportion to it"),
        (((SGD, 0.1), ({}, 1e-3)), ((SGD, 1.0), ({}, 0.5)),
         "0.1 where optimizer is sgd or nesterov, else 0.001, at batch_size 128; in proportion to it where optimizer is "
         "sgd or nesterov, else with its square root"),
        ((({}, 0.1),), (({}, -0.5),), "0.1 at batch_size 128; with its power of -0.5"),
        ((({}, 0.1),), (({}, 0.0),), "0.1 at batch_size 128; the same at any other"),
    ],
)  # fmt: skip
def test_a_centre_that_follows_another_knob(cases, exponents, text):
    assert centre_text(FloatRange(1e-4, 1.0, log=True), cases, Scaling("batch_size", 128, exponents)) == text


def test_the_centre_of_a_range_test_is_no_position():
    assert centre_text(RangeTested(), (({}, 0.5),)) == "the rate that the range test finds"


@pytest.mark.parametrize(
    ("spread", "domain", "text"),
    [
        (None, FloatRange(1.0, 2.0), ""),
        (2.0, FloatRange(1.0, 2.0, log=True), "2x"),
        (1.0 / 3, FloatRange(0.0, 1.0), "0.333"),
        (16.0, IntRange(1, 99), "16"),
        (1.5, IntRange(1, 99, log=True), "1.5x"),
    ],
)
def test_the_text_of_a_spread(spread, domain, text):
    assert spread_text(spread, domain) == text


@pytest.mark.parametrize("knob", CATALOGUE.values(), ids=lambda knob: knob.name)
def test_every_knob_says_where_a_search_begins(knob):
    text = start_text(knob)
    assert text
    assert "lr_scaling" not in text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("a", "maximize a"),
        ("ab", "maximize a and maximize b"),
        ("abc", "maximize a, maximize b and maximize c"),
    ],
)
def test_what_is_looked_for(names, text):
    assert goals_text([(name, "max") for name in names]) == text
