"""The section `prior`: what it holds, how it is written, and the exact message for each mistake."""

from __future__ import annotations

import pytest

from dialin.errors import SpecError
from dialin.specification import parse_spec, spec_from_data, stored_spec, to_data, to_yaml
from dialin.specification.domains import Belief, StatedPrior

HEAD = "name: x\nobjective: {dataset: digits}\n"
SPACE = """space:
  model: small_cnn
  optimizer: [sgd, adam, rmsprop]
  lr: {min: 1e-3, max: 0.5, log: true}
  momentum: {min: 0.5, max: 0.95, when: {optimizer: [sgd, rmsprop]}}
  nesterov: {choices: [false, true], when: {optimizer: sgd}}
  dropout: {min: 0, max: 0.5}
  normalization: [none, batch]
  batch_size: [32, 64]
"""
OWN = "name: x\nobjective: {python: /mine/train.py:train}\nspace: {a: [off, on], b: {min: 1, max: 9}, c: [true, 2]}\n"


def prior_of(text, head=HEAD + SPACE):
    return parse_spec(f"{head}prior: {text}\n").prior


def message(text, head=HEAD + SPACE):
    with pytest.raises(SpecError) as caught:
        parse_spec(f"{head}prior: {text}\n")
    (problem,) = caught.value.problems
    assert problem.line == len(head.splitlines()) + 1
    return f"{problem.path}: {problem.message}"


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("off", StatedPrior(off=True)),
        ("none", StatedPrior(off=True)),
        ("{}", StatedPrior()),
        ("{lr: 1e-2}", StatedPrior({"lr": Belief((({}, 0.01),))})),
        ("{lr: {around: 0.1, spread: 2x}}", StatedPrior({"lr": Belief((({}, 0.1),), 2.0)})),
        ("{lr: {around: 0.1, spread: 1.5e0 x}}", StatedPrior({"lr": Belief((({}, 0.1),), 1.5)})),
        ("{dropout: {around: 0.1, spread: 1}}", StatedPrior({"dropout": Belief((({}, 0.1),), 1.0)})),
        ("{lr: off, dropout: false}", StatedPrior({"lr": Belief(()), "dropout": Belief(())})),
        ("{model: off}", StatedPrior({"model": Belief(())})),
        ("{normalization: none, nesterov: false}",
         StatedPrior({"normalization": Belief((({}, "none"),)), "nesterov": Belief((({}, False),))})),
        ("{batch_size: 64.0}", StatedPrior({"batch_size": Belief((({}, 64),))})),
        ("{lr: {around: 0.1, when: {optimizer: sgd, normalization: [batch]}}}",
         StatedPrior({"lr": Belief((({"optimizer": ("sgd",), "normalization": ("batch",)}, 0.1),))})),
        ("{lr: [{around: 0.1, when: {optimizer: sgd}, spread: 3x}, {around: 0.01}]}",
         StatedPrior({"lr": Belief((({"optimizer": ("sgd",)}, 0.1), ({}, 0.01)), 3.0)})),
        ("{lr: {around: 0.1, when: {model: [small_cnn, resnet18]}}}",
         StatedPrior({"lr": Belief((({"model": ("small_cnn", "resnet18")}, 0.1),))})),
    ],
)  # fmt: skip
def test_a_prior_reads_back_however_it_is_written(text, stated):
    spec = parse_spec(f"{HEAD}{SPACE}prior: {text}\n")
    assert spec.prior == stated
    assert spec_from_data(to_data(spec)) == spec
    assert stored_spec(to_yaml(spec)) == spec


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("{a: off, b: 3}", {"a": Belief(()), "b": Belief((({}, 3),))}),
        ("{a: {around: off}}", {"a": Belief((({}, "off"),))}),
        ("{a: on, c: true}", {"a": Belief((({}, "on"),)), "c": Belief((({}, True),))}),
        ("{b: {around: 3, when: {a: on}}}", {"b": Belief((({"a": ("on",)}, 3),))}),
    ],
)
def test_the_knobs_of_ones_own_function_can_have_a_prior(text, stated):
    spec = parse_spec(f"{OWN}prior: {text}\n")
    assert spec.prior == StatedPrior(stated)
    assert stored_spec(to_yaml(spec)) == spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on", "prior: 'on' is not a mapping of knobs to values, such as {lr: 1e-3}; to have no prior: off"),
        ("[lr]", "prior: ['lr'] is not a mapping of knobs to values, such as {lr: 1e-3}; to have no prior: off"),
        ("{lrr: 1}", "prior.lrr: unknown knob 'lrr'; did you mean 'lr'?"),
        ("{beta1: 0.9}",
         "prior.beta1: beta1 is not in this space, so that it is not searched; a prior is about a knob of `space`"),
        ("{model: small_cnn}", "prior.model: model has one value in this space, 'small_cnn', and is not searched; leave "
                               "it out, or write off"),
        ("{lr: 3}", "prior.lr: 3.0 is not a value of lr in this space: 0.001 to 0.5, log"),
        ("{lr: 0}", "prior.lr: 0 is out of bounds; lr is above 0 and at most 100"),
        ("{lr: {}}", "prior.lr: 'around' is missing: the value about which to search first"),
        ("{lr: fast}", "prior.lr: 'fast' is not a number"),
        ("{lr: {around: fast}}", "prior.lr.around: 'fast' is not a number"),
        ("{lr: {around: 0.1, sprd: 2x}}", "prior.lr.sprd: unknown key 'sprd'; did you mean 'spread'?"),
        ("{lr: {around: 0.1, spread: 2}}",
         "prior.lr.spread: 2: lr is searched on a log scale, where a spread is a factor such as 2x"),
        ("{lr: {around: 0.1, spread: -2x}}",
         "prior.lr.spread: '-2x': lr is searched on a log scale, where a spread is a factor such as 2x"),
        ("{lr: {around: 0.1, spread: 1x}}", "prior.lr.spread: '1x' is not above 1x"),
        ("{lr: {around: 0.1, spread: 1e999x}}", "prior.lr.spread: inf is not a finite number"),
        ("{dropout: {around: 0.1, spread: 2x}}",
         "prior.dropout.spread: '2x': dropout is searched on a linear scale, where a spread is a number such as 0.1"),
        ("{dropout: {around: 0.1, spread: true}}",
         "prior.dropout.spread: true: dropout is searched on a linear scale, where a spread is a number such as 0.1"),
        ("{dropout: {around: 0.1, spread: -1}}", "prior.dropout.spread: -1 is not above 0"),
        ("{optimizer: {around: sgd, spread: 1}}",
         "prior.optimizer.spread: optimizer is a choice, which has no spread; leave it out"),
        ("{optimizer: nadam}", "prior.optimizer: 'nadam' is not a value of optimizer in this space: one of sgd, adam, rmsprop"),
        ("{batch_size: 48}", "prior.batch_size: 48 is not a value of batch_size in this space: one of 32, 64"),
        ("{lr: []}", "prior.lr: 0 cases; allowed: 1 to 20"),
        ("{lr: [0.1]}", "prior.lr.0: 0.1 is not a case; write one value without a list, or cases such as {around: VALUE, "
                        "when: {KNOB: VALUE}}"),
        ("{lr: [{around: 0.1}, {around: 0.2}]}", "prior.lr.1: never holds, because the case before it has no `when`"),
        ("{lr: [{around: 0.1, when: {optimizer: sgd}, spread: 2x}, {around: 0.2, spread: 3x}]}",
         "prior.lr: the cases of one knob have one spread; write it in one of them"),
        ("{lr: [{around: 0.1, when: {optimizer: sgd}}, {around: 2}]}",
         "prior.lr.1.around: 2.0 is not a value of lr in this space: 0.001 to 0.5, log"),
        ("{lr: {around: 0.1, when: {}}}", "prior.lr.when: {} is not a mapping such as {optimizer: [sgd, rmsprop]}"),
        ("{lr: {around: 0.1, when: {optimizr: sgd}}}", "prior.lr.when.optimizr: the condition names 'optimizr', which is no "
                                                       "other knob of this space; did you mean 'optimizer'?"),
        ("{lr: {around: 0.1, when: {dropout: 0.1}}}", "prior.lr.when.dropout: dropout is drawn from a continuous range, so a "
                                                      "condition on one of its values never holds"),
        ("{lr: {around: 0.1, when: {optimizer: lion}}}", "prior.lr.when.optimizer: 'lion' is not a value of optimizer; "
         "allowed: adagrad, adam, adamw, nadam, nesterov, rmsprop, sgd"),
        ("{optimizer: {around: sgd, when: {nesterov: true}}}",
         "prior.optimizer: the conditions form a circle: optimizer -> nesterov -> optimizer"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_prior_is_explained(text, expected):
    assert message(text) == expected


def test_a_centre_cannot_depend_on_its_own_knob():
    assert message("{optimizer: {around: sgd, when: {optimizer: adam}}}").startswith(
        "prior.optimizer.when.optimizer: the condition names 'optimizer', which is no other knob of this space; allowed: "
    )


def test_the_range_test_has_the_last_word_on_its_rate():
    head = HEAD + "space: {lr: {range_test: }, optimizer: [sgd, adam]}\n"
    assert message("{lr: 0.1}", head) == (
        "prior.lr: the range test finds the centre of lr; leave it out, or write lr as a range in `space`"
    )
    assert prior_of("{lr: off}", head) == StatedPrior({"lr": Belief(())})


def test_of_a_knob_whose_domain_is_refused_only_that_is_told():
    with pytest.raises(SpecError) as caught:
        parse_spec(
            f"{HEAD}space: {{lr: {{min: 3, max: 1}}, dropout: 2}}\nprior: {{lr: 0.1, dropout: {{around: 0}}, width: 3}}\n"
        )
    assert [problem.path for problem in caught.value.problems] == ["space.lr", "space.dropout", "prior.width"]


def test_every_mistake_is_told_at_once():
    with pytest.raises(SpecError) as caught:
        parse_spec(f"{HEAD}{SPACE}prior: {{lr: 3, dropout: 4, lrr: 1}}\n")
    assert [problem.path for problem in caught.value.problems] == ["prior.lr", "prior.dropout", "prior.lrr"]


def test_a_condition_that_only_this_space_leaves_out_is_no_mistake():
    """--set optimizer=adam must not turn it into one."""
    spec = parse_spec(
        f"{HEAD}{SPACE}prior: {{lr: {{around: 0.1, when: {{optimizer: sgd}}}}}}\n", overrides=["optimizer=adam"]
    )
    assert spec.prior.knobs["lr"].cases == (({"optimizer": ("sgd",)}, 0.1),)


@pytest.mark.parametrize(
    ("given", "overrides", "stated"),
    [
        ("{}", ["prior.lr=0.1"], StatedPrior({"lr": Belief((({}, 0.1),))})),
        ("off", ["prior.lr=0.1"], StatedPrior({"lr": Belief((({}, 0.1),))})),
        ("{lr: 0.1}", ["prior=off"], StatedPrior(off=True)),
        ("{lr: 0.1}", ["prior.lr=off"], StatedPrior({"lr": Belief(())})),
        ("{lr: 0.1}", ["prior.lr.around=0.2", "prior.lr.spread=2x"], StatedPrior({"lr": Belief((({}, 0.2),), 2.0)})),
    ],
)
def test_a_prior_is_set_from_the_command_line(given, overrides, stated):
    assert parse_spec(f"{HEAD}{SPACE}prior: {given}\n", overrides=overrides).prior == stated


def test_it_is_left_out_where_nothing_is_stated():
    """So that an older dialin reads what uses nothing new."""
    assert "prior" not in to_data(parse_spec(HEAD + SPACE))
    assert "prior" not in to_data(parse_spec(f"{HEAD}{SPACE}prior: {{}}\n"))
    assert to_data(parse_spec(f"{HEAD}{SPACE}prior: off\n"))["prior"] == "off"


def test_it_is_written_as_shortly_as_it_reads_back():
    text = "{lr: {around: 0.1, spread: 2x}, dropout: 0.1, momentum: off}"
    written = to_data(parse_spec(f"{HEAD}{SPACE}prior: {text}\n"))["prior"]
    assert written == {"lr": {"around": 0.1, "spread": "2.0x"}, "dropout": 0.1, "momentum": "off"}
