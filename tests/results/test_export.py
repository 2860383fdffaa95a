"""best_config.yaml is a specification that `dialin run` accepts, whatever the study was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dialin.lifecycle import TrialState
from dialin.results.export import best_config, write_best_config
from dialin.results.summary import summarize
from dialin.search.models.encoding import Encoding
from dialin.search.records import TrialRecord
from dialin.specification import active_params, complete, load_spec, parse_spec, shipped
from dialin.specification.domains import Fixed, RangeTested
from dialin.specification.range_tests import Calibration, RateBounds
from tests.factories import make_spec

PLAIN = """
name: mine
objective: {dataset: synthetic}
space:
  optimizer: [sgd, adam, rmsprop]
  momentum: {min: 0.5, max: 0.99, when: {optimizer: [sgd, rmsprop]}}
  nesterov: {choices: [true, false], when: {optimizer: sgd}}
  lr: LR
  batch_size: {min: 16, max: 128, step: 16}
  dropout: 0.1
search: {enqueue: ENQUEUE, warm_start: WARM}
budget: {trials: 40, epochs: 9, hours: 2, target: 0.9}
claim: {says: it, better: {optimizer: adam}, than: {optimizer: sgd}}
"""
LRS = ["{min: 1e-4, max: 1, log: true}", "[0.01, 0.1]", "{range_test: {per: [optimizer]}}"]


def spec_of(lr, enqueue, warm_start):
    text = PLAIN.replace("LR", lr).replace("ENQUEUE", str(enqueue)).replace("WARM", str(warm_start))
    return parse_spec(text)


def trial_of(spec, numbers):
    """A trial at a point of the unit cube."""
    calibration = None
    if any(isinstance(domain, RangeTested) for domain in spec.space.values()):
        bounds = [RateBounds({"optimizer": name}, 0.001, 0.1, None, ()) for name in ("sgd", "adam", "rmsprop")]
        calibration = Calibration(tuple(bounds), 3.0, ())
    encoding = Encoding(spec, calibration)
    point = [numbers[index % len(numbers)] for index in range(len(encoding.names))]
    return TrialRecord(3, TrialState.COMPLETE, active_params(spec, encoding.decode(point)), 12345, {1: 0.5, 2: 0.6})


def written(spec, record):
    records = [TrialRecord(number, TrialState.FAILED, {}, 0) for number in range(record.number)] + [record]
    return best_config(spec, record, summarize(spec, "mine-abc", "complete", records))


def check(spec, record):
    text = written(spec, record)
    again = parse_spec(text)
    # A knob of the study whose condition did not hold is at its default here: what is trained is the same.
    assert complete(active_params(again, {})) == complete(record.params)
    assert active_params(again, {}).items() >= record.params.items()
    assert all(isinstance(domain, Fixed) for domain in again.space.values())
    assert (again.search.trial_seed, again.budget.trials, again.budget.epochs) == (12345, 1, spec.budget.epochs)
    assert again.objective == spec.objective
    assert again.name != spec.name or spec.name.endswith("-best")
    assert again.search.enqueue == again.search.warm_start == []
    return text


points = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40)


@given(name=st.sampled_from(shipped.names()), numbers=points)
@example(name="articles/optimizers", numbers=[0.25])
@settings(max_examples=60, deadline=None)
def test_of_every_shipped_space(name, numbers):
    spec = load_spec(name)
    check(spec, trial_of(spec, numbers))


@given(lr=st.sampled_from(LRS), enqueue=st.sampled_from([[], [{"optimizer": "sgd"}, {"batch_size": 32}]]),
       warm_start=st.sampled_from([[], ["gone-abc"]]), numbers=points)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_of_spaces_with_conditions_range_tests_and_what_a_search_begins_with(lr, enqueue, warm_start, numbers):
    spec = spec_of(lr, enqueue, warm_start)
    check(spec, trial_of(spec, numbers))


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(values=st.lists(text | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | st.booleans(), min_size=2, max_size=5,
                       unique_by=repr), numbers=points)  # fmt: skip
@example(values=["größe", "日本語 🙂", "no", "1e-3", "1:30", "null", " # x", "'", "a: b"], numbers=[0.3])
@settings(max_examples=60, deadline=None)
def test_of_a_function_of_ones_own(values, numbers, tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "train.py"
    file.write_text("def train(config, trial): ...\n")
    space = {"kind": values, "size": {"min": 1, "max": 9}}
    data = {"name": "own", "objective": {"python": f"{file}:train"}, "space": space}
    spec = parse_spec(yaml.safe_dump(data, allow_unicode=True))
    check(spec, trial_of(spec, numbers))


def test_the_moved_knobs_come_first_one_a_line_and_letters_stay_letters(tmp_path):
    spec = spec_of(LRS[0], [], [])
    record = trial_of(spec, [0.1])
    lines = written(spec, record).splitlines()
    start = lines.index("space:")
    moved = [line.partition(":")[0].strip() for line in lines[start + 2 : start + 7]]
    assert lines[start + 1] == "  # what the search chose"
    assert sorted(moved) == ["batch_size", "lr", "momentum", "nesterov", "optimizer"]
    assert lines[start + 7 : start + 9] == ["  # fixed in the study's specification", "  dropout: 0.1"]
    assert not any("{" in line for line in lines)
    assert "epoch_seconds" not in "".join(lines)
    file = tmp_path / "train.py"
    file.write_text("def train(config, trial): ...\n")
    own = parse_spec(f"{{name: own, objective: {{python: '{file}:train'}}, space: {{kind: ['größe', 'länge']}}}}")
    found = trial_of(own, [0.1])
    write_best_config(tmp_path / "best_config.yaml", own, found, summarize(own, "own-abc", "complete", [found]))
    assert "  kind: größe\n" in (tmp_path / "best_config.yaml").read_text(encoding="utf-8")
    assert load_spec(tmp_path / "best_config.yaml").space["kind"].value == "größe"


@pytest.mark.parametrize(("name", "best"), [("mine", "mine-best"), ("mine-best", "mine-best"), ("x" * 64, "x" * 59 + "-best")])  # fmt: skip
def test_it_has_a_name_of_its_own(name, best):
    spec = make_spec(f"name={name}")
    assert parse_spec(written(spec, trial_of(spec, [0.4]))).name == best


def test_a_trial_that_went_on_from_another_says_so():
    spec = make_spec()
    record = replace(trial_of(spec, [0.4]), continues=1, began=4)
    text = check(spec, record)
    assert "# The trial continued trial 1 after epoch 4" in text
