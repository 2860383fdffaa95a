from __future__ import annotations

import pytest

from dialin.specification import lint, load_spec, shipped
from tests.factories import make_spec


@pytest.mark.parametrize(
    ("space", "overrides", "expected"),
    [
        ("lr: {min: 1e-3, max: 1}", (), "space.lr: a learning rate acts by its order of magnitude; add log: true"),
        ("{optimizer: adam, momentum: {value: 0.9, when: {optimizer: [sgd, rmsprop]}}}", (),
         "space.momentum: never exists in this space: optimizer would have to be sgd or rmsprop"),
        ("lr: {min: 0.1, max: 0.2}", (), "space.lr: 0.1 to 0.2 is less than a factor of 3, which leaves little to find"),
        ("{optimizer: [sgd, adam], momentum: {min: 0.1, max: 0.9}}", (),
         "space.momentum: does nothing when optimizer is adam; add when: {optimizer: [sgd]}"),
        ("{optimizer: adam, momentum: {min: 0.1, max: 0.9}}", (),
         "space.momentum: does nothing here: it applies when optimizer is sgd or nesterov or rmsprop, and optimizer is adam"),
        ("{model: resnet18, depth: {min: 1, max: 4}}", (),
         "space.depth: does nothing here: it applies when model is small_cnn, and model is resnet18"),
        ("batch_size: {min: 16, max: 512}", ("objective.samples=100",),
         "space.batch_size: up to 512 images per step, of 100 in all (objective.samples)"),
        ("lr: 0.1", (), "budget.trials: nothing moves in this space, so all 12 trials are the same"),
        ("optimizer: [sgd, adam]", (), "budget.trials: 12 trials of a space with 2 configurations"),
        ("dropout: {min: 0, max: 0.3, step: 0.1}", (), "budget.trials: 12 trials of a space with 4 configurations"),
        ("dropout: {min: 0, max: 0.5}", ("budget.target=98",),
         "budget.target: 98 is never reached: accuracy is a fraction, at most 1"),
        ("warmup_epochs: {min: 0, max: 20}", (), "space.warmup_epochs: up to 20 epochs of warm-up in a trial of 9"),
        ("dropout: {min: 0, max: 0.5}", ("budget.epochs=60", "early_stopping.asha.grace_epochs=1"),
         "early_stopping.asha.grace_epochs: after 1 of 60 epochs trials cannot be told apart well; 5 or more is better"),
        ("dropout: {min: 0, max: 0.5}", ("search.sampler=random", "prior.dropout=0.1"),
         "prior: the sampler random does not use it; write search.sampler: gp"),
        ("{optimizer: adam, dropout: {min: 0, max: 0.5}}", ("prior.dropout={around: 0.1, when: {optimizer: sgd}}",),
         "prior.dropout: never holds in this space: optimizer would have to be sgd"),
        ("dropout: {min: 0, max: 0.5}", ("search.sampler=tpe",), "budget.trials: the first 10 of 12 trials are drawn at random"),
    ],
)  # fmt: skip
def test_doubts(space, overrides, expected):
    found = [f"{warning.path}: {warning.message}" for warning in lint(make_spec(*overrides, space=f"\n  {space}\n"))]
    assert expected in found


def test_a_guarded_knob_is_no_doubt():
    assert [w for w in lint(make_spec()) if w.path.startswith("space.")] == []


@pytest.mark.parametrize("override", ["prior=off", "prior.lr=off", "prior.lr=0.1"])
def test_a_prior_that_is_used_or_switched_off_is_no_doubt(override):
    sampler = "gp" if override.endswith("1") else "random"
    found = lint(make_spec(override, f"search.sampler={sampler}"))
    assert [w for w in found if w.path.startswith("prior")] == []


@pytest.mark.parametrize("name", shipped.names())
def test_shipped_spaces_raise_no_doubt(name):
    assert lint(load_spec(name)) == []
