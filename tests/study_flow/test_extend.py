"""More budget for a study, and studies to learn from."""

from __future__ import annotations

import re

import pytest

from dialin.errors import NotFoundError, SpecError, UsageError
from dialin.lifecycle import StudyState
from dialin.planning.plan import rungs_for
from dialin.settings import Settings
from dialin.specification import to_yaml
from dialin.store.studies import Studies
from dialin.study_flow.extend import extend_budget, resolve_warm_start
from tests.factories import make_spec


def test_more_trials_leave_the_rest_alone():
    spec = make_spec()
    longer = extend_budget(spec, "+20", None)
    assert (longer.budget.trials, longer.budget.epochs) == (32, 9)
    assert rungs_for(longer) == rungs_for(spec) == (1, 3)
    assert extend_budget(spec, "32", None) == longer


def test_an_extension_keeps_the_prior():
    spec = make_spec("prior.lr={around: 0.1, spread: 2x}")
    assert extend_budget(spec, "+4", None).prior == spec.prior
    assert extend_budget(make_spec("prior=off"), None, "+4").prior.off


def test_longer_trials_keep_their_rungs_and_the_old_length_becomes_one():
    assert rungs_for(extend_budget(make_spec(), None, "27")) == (1, 3, 9)
    assert rungs_for(extend_budget(make_spec(), None, "+21")) == (1, 3, 9, 27)
    assert rungs_for(extend_budget(make_spec("early_stopping.asha.grace_epochs=2"), None, "20")) == (2, 6, 9)
    assert rungs_for(extend_budget(make_spec("early_stopping=off"), None, "20")) == ()
    twice = extend_budget(extend_budget(make_spec(), None, "27"), None, "81")
    assert rungs_for(twice) == (1, 3, 9, 27)


@pytest.mark.parametrize(
    ("trials", "epochs", "message"),
    [
        (None, None, "an extension needs --trials or --epochs: a larger number, or +N to add N"),
        ("12", None, "--trials 12: the study has 12 already; give a larger number, or +N to add N"),
        ("+0", None, "--trials +0: the study has 12 already"),
        (None, "3", "--epochs 3: the study has 9 already"),
        ("many", None, "--trials 'many': allowed are a whole number, or +N to add N"),
        ("-3", None, "--trials '-3'"),
    ],
)
def test_what_is_not_more_is_refused(trials, epochs, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        extend_budget(make_spec(), trials, epochs)


def test_studies_to_learn_from_are_looked_up_before_anything_runs(tmp_path):
    settings = Settings(tmp_path / "out", tmp_path / "data")
    spec = make_spec("search.warm_start=[small]")
    with pytest.raises(NotFoundError, match="search.warm_start names studies to learn from, but .* has no studies"):
        resolve_warm_start(spec, settings)
    settings.out.mkdir()
    studies = Studies(settings.database)
    row = studies.create("small", to_yaml(make_spec("objective.metric=val_loss")))
    with pytest.raises(
        SpecError, match=rf"search.warm_start.0: study {row.id} optimized val_loss, this one optimizes val_accuracy; "
    ):
        resolve_warm_start(spec, settings)
    other = studies.create("small", to_yaml(make_spec()))
    with pytest.raises(SpecError, match=f"study {other.id} is still running; wait until it has ended"):
        resolve_warm_start(spec, settings)
    studies.end(other.id, StudyState.COMPLETE, "", {})
    assert resolve_warm_start(spec, settings).search.warm_start == [other.id]
    assert resolve_warm_start(make_spec(), settings) == make_spec()
    studies.close()
