"""The prior of a search: where the catalogue, the examples and the space put its centre."""

from __future__ import annotations

import pytest
from hypothesis import given

from dialin.planning.prior import (
    MOST_DEFAULTS,
    KnobPrior,
    Scaling,
    centre,
    default_configuration,
    defaults_by_root,
    depends_on,
    first_trials,
    order_of,
    prior_of,
    root_choices,
)
from dialin.specification import active_params, load_spec, parse_spec, searched, shipped
from dialin.specification.domains import RangeTested, allows, holds
from dialin.specification.range_tests import Calibration, RateBounds
from tests.factories import make_spec
from tests.specification.test_parsing import specs

OPTIMIZERS = "\n  optimizer: [sgd, adam, adamw, rmsprop]\n"
OWN = "name: x\nobjective: {python: /mine/train.py:train}\nspace:\n"


def calibration_of(spec):
    """Bounds for whatever a space tests, centred on 0.1 for sgd and on 0.001 for all others."""
    domain = spec.space["lr"]
    values = getattr(spec.space.get("optimizer"), "values", ("sgd",))
    combinations = [{"optimizer": value} for value in values] if "optimizer" in domain.per else [{}]
    rates = [0.1 if one.get("optimizer", "sgd") == "sgd" else 0.001 for one in combinations]
    bounds = (RateBounds(one, rate / 10, rate * 10, None, ()) for one, rate in zip(combinations, rates, strict=True))
    return Calibration(tuple(bounds), 1.0)


def check_defaults(spec):
    """What holds of the prior and of the default configurations of any space."""
    tested = isinstance(spec.space.get("lr"), RangeTested)
    calibration = calibration_of(spec) if tested else None
    prior = prior_of(spec, calibration)
    assert prior == prior_of(spec, calibration)
    order = order_of(spec, prior)
    assert sorted(order) == sorted(searched(spec))
    assert [name for name in order if name in prior.knobs] == list(prior.knobs)
    for name, belief in prior.knobs.items():
        assert belief.cases
        assert belief.source
        assert depends_on(belief) <= set(order[: order.index(name)])
    found = defaults_by_root(spec, prior, calibration)
    assert 1 <= len(found) <= MOST_DEFAULTS
    assert len({tuple(sorted(one.items(), key=str)) for one in found}) == len(found)
    assert found[0] == default_configuration(spec, prior, calibration)
    for chosen in found:
        params = active_params(spec, chosen)
        exists = [name for name in searched(spec) if holds(spec.space[name].when, params)]
        assert list(chosen) == exists
        for name, value in chosen.items():
            assert allows(spec.space[name], value), (name, value)


@pytest.mark.parametrize("name", shipped.names())
def test_the_centres_of_every_shipped_space_are_configurations_of_it(name):
    spec = load_spec(name)
    check_defaults(spec)
    untested = [name for name in searched(spec) if name not in prior_of(spec).knobs]
    assert untested == []  # the catalogue knows all of them


@given(specs())
def test_the_centres_of_any_space_are_configurations_of_it(spec):
    check_defaults(spec)


def test_a_learning_rate_follows_the_optimizer_and_the_batch():
    spec = make_spec(
        space=OPTIMIZERS + "  lr: {min: 1e-5, max: 1, log: true}\n  batch_size: {min: 8, max: 512, log: true}"
    )
    prior = prior_of(spec)
    belief = prior.knobs["lr"]
    assert belief.cases == (({"optimizer": ("sgd",)}, 0.1), ({}, 0.001))
    assert belief.scaling == Scaling("batch_size", 128, (({"optimizer": ("sgd",)}, 1.0), ({}, 0.5)))
    assert centre(spec, prior, "lr", {"optimizer": "sgd", "batch_size": 256}) == pytest.approx(0.2)
    assert centre(spec, prior, "lr", {"optimizer": "adam", "batch_size": 512}) == pytest.approx(0.002)


def test_what_training_scales_already_is_not_scaled_again():
    space = "\n  lr: {min: 1e-5, max: 1, log: true}\n  batch_size: {min: 8, max: 512, log: true}\n  optimizer: [sgd, adam]\n"
    spec = make_spec(space=space + "  lr_scaling: [none, linear]")
    prior = prior_of(spec)
    rates = {
        (optimizer, scaling): centre(
            spec, prior, "lr", {"optimizer": optimizer, "batch_size": 512, "lr_scaling": scaling}
        )
        for optimizer in ("sgd", "adam")
        for scaling in ("none", "linear")
    }
    assert rates == pytest.approx(
        {("sgd", "none"): 0.4, ("sgd", "linear"): 0.1, ("adam", "none"): 0.002, ("adam", "linear"): 0.0005}
    )


def test_a_centre_beyond_the_bounds_is_the_nearest_value_after_it_has_followed():
    space = "\n  lr: {min: 1e-5, max: 0.05, log: true}\n  batch_size: {min: 8, max: 512, log: true}"
    spec = make_spec(space=space)
    prior = prior_of(spec)
    assert centre(spec, prior, "lr", {"batch_size": 512}) == 0.05
    assert centre(spec, prior, "lr", {"batch_size": 32}) == pytest.approx(0.025)  # 0.1 at 128, which is out of bounds


@pytest.mark.parametrize(
    ("fixed", "cases"),
    [
        ("optimizer: sgd\n  batch_size: 64", (({}, 0.05),)),
        ("optimizer: adam\n  batch_size: 32", (({}, 0.0005),)),
        ("batch_size: 256", (({}, 0.2),)),  # the optimizer's default is sgd
        ("optimizer: [adam, adamw]\n  batch_size: 128", (({}, 0.001),)),
        ("optimizer: [sgd, adam]\n  batch_size: 512", (({"optimizer": ("sgd",)}, 0.4), ({}, 0.002))),
        (
            "optimizer: [sgd, adam]\n  batch_size: {value: 512, when: {optimizer: sgd}}",
            (({"optimizer": ("sgd",)}, 0.4), ({}, 0.001)),
        ),
        ("optimizer: sgd\n  lr_scaling: linear\n  batch_size: 512", (({}, 0.1),)),
    ],
)
def test_what_is_not_searched_is_looked_up(fixed, cases):
    belief = prior_of(make_spec(space=f"\n  lr: {{min: 1e-5, max: 1, log: true}}\n  {fixed}")).knobs["lr"]
    assert belief.scaling is None
    assert [when for when, _ in belief.cases] == [when for when, _ in cases]
    assert [value for _, value in belief.cases] == pytest.approx([value for _, value in cases])


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("optimizer: [adam, rmsprop, adamw]", "adamw"),  # no sgd: the next best
        ("width: [8, 16, 24]", 24),
        ("weight_decay: [0, 1e-4, 1e-3, 1e-2]", 1e-3),  # by their ratio
        ("dropout: [0.0, 0.5]", 0.0),  # by their difference
        ("depth: {min: 4, max: 6}", 4),
        ("batch_size: {min: 16, max: 96, step: 40}", 56),
        ("min_lr: {min: 1e-6, max: 1e-3, log: true}", 1e-6),
        ("clip_norm: {min: 0.1, max: 10, log: true}", 1.0),
        ("initialization: [zeros, default]", "default"),
        ("augmentation: [none, flip+crop]", "crop+flip"),
        ("nesterov: [false, true]", True),
    ],
)
def test_the_nearest_value_that_a_space_has(knob, value):
    spec = make_spec(space=f"\n  {knob}")
    assert default_configuration(spec, prior_of(spec)) == {knob.split(":")[0]: value}


def test_constants_of_the_study_are_looked_up():
    space = "\n  warmup_epochs: {min: 0, max: 9}\n  label_smoothing: {min: 0, max: 0.2}\n  augmentation: [none, crop, flip, rotate, crop+flip]"
    of = {
        dataset: default_configuration(spec, prior_of(spec))
        for dataset in ("digits", "cifar10")
        for spec in [make_spec(f"budget.epochs={90 if dataset == 'cifar10' else 18}", space=space, dataset=dataset)]
    }
    assert of["digits"] == {"warmup_epochs": 1.0, "label_smoothing": 0.1, "augmentation": "crop"}
    assert of["cifar10"] == {"warmup_epochs": 5.0, "label_smoothing": 0.1, "augmentation": "crop+flip"}
    by_loss = make_spec("objective.metric=val_loss", space=space)
    assert default_configuration(by_loss, prior_of(by_loss))["label_smoothing"] == 0.0


def test_a_choice_without_any_good_value_has_no_prior():
    spec = make_spec(
        space="\n  initialization: [zeros, normal]\n  input: [none, scale]\n  pooling_normalization: [l2, softmax]"
    )
    assert prior_of(spec).knobs.keys() == {"initialization", "input", "pooling_normalization"}
    spec = make_spec(space="\n  normalization: [none, batch]\n  schedule: [fixed, cyclical]")
    assert prior_of(spec).knobs["schedule"].cases == (({}, "cyclical"),)


def test_one_default_for_each_value_of_a_root_choice():
    spec = make_spec(space=OPTIMIZERS + "  lr: {min: 1e-5, max: 1, log: true}\n  activation: [relu, tanh]")
    prior = prior_of(spec)
    assert root_choices(spec, prior) == ["optimizer"]  # nothing depends on the activation
    assert [(one["optimizer"], one["lr"], one["activation"]) for one in defaults_by_root(spec, prior)] == [
        ("sgd", 0.1, "relu"),
        ("adam", 0.001, "relu"),
        ("adamw", 0.001, "relu"),
        ("rmsprop", 0.001, "relu"),
    ]


def test_every_second_trial_after_those_that_are_enqueued_is_a_default():
    def numbers(*overrides):
        spec = make_spec(*overrides, space=OPTIMIZERS + "  lr: {min: 1e-5, max: 1, log: true}")
        found = first_trials(spec, prior_of(spec))
        assert [one.params for one in found] == defaults_by_root(spec, prior_of(spec))[: len(found)]
        return [(one.trial, one.given.get("optimizer")) for one in found]

    assert numbers("budget.trials=20") == [(0, None), (2, "adam"), (4, "adamw"), (6, "rmsprop")]
    enqueued = "search.enqueue=[{lr: 0.2}, {lr: 0.3}, {lr: 0.4}]"
    assert numbers("budget.trials=20", enqueued) == [(3, None), (5, "adam"), (7, "adamw"), (9, "rmsprop")]
    assert numbers("budget.trials=4") == [(0, None)]
    assert numbers("budget.trials=11") == [(0, None), (2, "adam")]
    assert numbers("budget.trials=20", "search.warm_start=[mine]") == [(0, None)]
    assert numbers("budget.trials=3", enqueued) == []


def test_a_choice_on_which_existence_depends_is_a_root_too():
    space = """
  schedule: [cosine, step]
  decay_factor: {min: 0.05, max: 0.5, log: true, when: {schedule: step}}
  decay_every: {min: 0.1, max: 0.5, when: {schedule: step}}"""
    spec = make_spec(space=space)
    assert defaults_by_root(spec, prior_of(spec)) == [
        {"schedule": "cosine"},
        {"schedule": "step", "decay_factor": 0.1, "decay_every": pytest.approx(1 / 3)},
    ]


def test_of_very_many_roots_the_defaults_are_cut():
    knobs = "".join(f"\n  a{i}: [1, 2, 3]\n  b{i}: {{min: 0.0, max: 1.0, when: {{a{i}: 2}}}}" for i in range(20))
    spec = parse_spec(OWN + knobs)
    assert len(defaults_by_root(spec, prior_of(spec))) == MOST_DEFAULTS


def test_without_a_prior_the_default_is_the_middle_and_the_first():
    text = (
        "a: {min: 1e-4, max: 1.0, log: true}\n  b: [x, y]\n  c: {min: 0, max: 10}\n  d: {min: 0.0, max: 3.0, step: 1.0}"
    )
    spec = parse_spec(f"{OWN}  {text}")
    prior = prior_of(spec)
    assert prior.knobs == {}
    found = default_configuration(spec, prior)
    assert found == {"a": pytest.approx(0.01), "b": "x", "c": 5, "d": 2.0}
    assert type(found["c"]) is int


def test_a_range_test_is_searched_about_the_middle_of_its_bounds():
    spec = make_spec(space="\n  optimizer: [sgd, adam]\n  lr: {range_test: {per: [optimizer]}}\n  batch_size: [32, 64]")
    calibration = calibration_of(spec)
    prior = prior_of(spec, calibration, [{"optimizer": "sgd", "lr": 0.9, "batch_size": 32}])
    assert prior.knobs["lr"] == KnobPrior((({}, 0.5),), "the range test, unclear in 2 of 2")
    found = defaults_by_root(spec, prior, calibration)
    assert [(one["optimizer"], one["lr"]) for one in found] == [
        ("sgd", pytest.approx(0.1)),
        ("adam", pytest.approx(0.001)),
    ]
    assert all("lr" not in one for one in defaults_by_root(spec, prior))


def test_the_space_has_the_last_word():
    spec = make_spec(
        "prior.lr=0.02", "prior.momentum=off", "prior.optimizer=adam", "prior.batch_size={around: 32, spread: 2x}"
    )
    prior = prior_of(spec)
    assert prior.knobs["lr"] == KnobPrior((({}, 0.02),), "this space")
    assert prior.knobs["batch_size"] == KnobPrior((({}, 32),), "this space", 2.0)
    assert "momentum" not in prior.knobs
    assert default_configuration(spec, prior) == {"optimizer": "adam", "lr": 0.02, "batch_size": 32}


def test_where_no_condition_of_the_space_holds_the_catalogue_does():
    spec = make_spec("prior.lr={around: 0.3, when: {optimizer: sgd}}")
    prior = prior_of(spec)
    assert centre(spec, prior, "lr", {"optimizer": "sgd", "batch_size": 32}) == 0.3  # a stated value follows nothing
    assert centre(spec, prior, "lr", {"optimizer": "adam", "batch_size": 32}) == pytest.approx(0.0005)
    assert prior.knobs["lr"].source.startswith("this space; elsewhere sgd: He et al.")


def test_off_is_no_prior_whatever_the_examples_say():
    spec = make_spec("prior=off")
    assert prior_of(spec, None, [{"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "batch_size": 32}]).knobs == {}


def test_what_the_catalogue_says_gives_way_to_the_conditions_of_the_space():
    """A centre must not depend on a knob that exists by the grace of its own."""
    spec = make_spec(
        space="\n  weight_decay_form: [l2, decoupled]\n  optimizer: {choices: [sgd, adam], when: {weight_decay_form: l2}}"
    )
    prior = prior_of(spec)
    assert order_of(spec, prior) == ["weight_decay_form", "optimizer"]
    assert prior.knobs["weight_decay_form"].cases == (({}, "decoupled"),)
    check_defaults(spec)


BEST = [
    {"optimizer": "sgd", "lr": 0.4, "momentum": 0.8, "batch_size": 128},
    {"optimizer": "adam", "lr": 0.004, "batch_size": 32},
    {"optimizer": "sgd", "lr": 0.2, "momentum": 0.7, "batch_size": 128},
    {"optimizer": "sgd", "lr": 0.1, "momentum": 0.6, "batch_size": 64},
]


def test_examples_beat_the_catalogue_and_the_space_beats_both():
    prior = prior_of(make_spec(), None, BEST)
    assert prior.knobs["optimizer"].cases == (({}, "sgd"),)
    assert prior.knobs["momentum"].cases == (({}, 0.7),)
    lr = prior.knobs["lr"]
    assert [value for _, value in lr.cases] == pytest.approx([0.2, 0.008])  # brought to a batch of 128
    assert lr.source == "the best trials of the studies of the warm start"
    assert prior_of(make_spec("prior.momentum=0.95"), None, BEST).knobs["momentum"] == KnobPrior(
        (({}, 0.95),), "this space"
    )


def test_a_case_without_examples_stays_the_catalogues():
    prior = prior_of(make_spec(), None, BEST[:1])
    assert [value for _, value in prior.knobs["lr"].cases] == pytest.approx([0.4, 0.001])


def test_the_spread_is_the_scatter_of_the_examples_within_bounds():
    one = [{"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "batch_size": size} for size in (64, 64, 64)]
    prior = prior_of(make_spec(), None, one)
    assert prior.knobs["batch_size"].spread == pytest.approx((128 / 16) ** 0.1)  # the least
    assert prior.knobs["momentum"].spread == pytest.approx(0.049)
    assert prior_of(make_spec(), None, one[:2]).knobs["batch_size"].spread is None  # two say nothing about scatter
    wide = [{**one[0], "batch_size": size} for size in (16, 128, 16, 128)]
    assert prior_of(make_spec(), None, wide).knobs["batch_size"].spread is None
    some = [{**one[0], "batch_size": size} for size in (32, 64, 45)]
    assert prior_of(make_spec(), None, some).knobs["batch_size"].spread == pytest.approx(1.414, abs=0.01)


def test_examples_beyond_the_space_are_brought_into_it():
    far = [{"optimizer": "lion", "lr": 90.0, "momentum": 0.999, "batch_size": 4096}]
    spec = make_spec()
    prior = prior_of(spec, None, far)
    assert prior.knobs["optimizer"].cases == (({}, "sgd"),)
    assert prior.knobs["momentum"].cases == (({}, 0.99),)
    assert prior.knobs["batch_size"].cases == (({}, 128),)
    assert allows(spec.space["lr"], centre(spec, prior, "lr", {"optimizer": "sgd", "batch_size": 16}))


def test_examples_of_a_function_of_ones_own():
    spec = parse_spec(OWN + "  a: {min: 1e-4, max: 1.0, log: true}\n  b: [x, y]\n  c: {min: 0.0, max: 1.0}")
    examples = [{"a": 0.1, "b": "y"}, {"a": 0.2, "b": "x"}, {"a": 0.3, "b": "y"}]
    prior = prior_of(spec, None, examples)
    assert {name: belief.cases for name, belief in prior.knobs.items()} == {"a": (({}, 0.2),), "b": (({}, "y"),)}
