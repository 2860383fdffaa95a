"""What objectives report for several metrics and for constraints."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dialin.errors import FunctionError
from dialin.objectives import build
from dialin.objectives.python_function import PythonFunction
from dialin.planning.plan import Resources
from dialin.specification import parse_spec


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Calls a function whose only line is a report, and returns its first epoch."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    count = iter(range(100))

    def call(line, metrics=("accuracy", "latency"), bounded=()):
        file = tmp_path / f"several_{next(count)}.py"
        file.write_text(f"def train(config, trial):\n    trial.report(1, {line})\n")
        run = PythonFunction(file, "train", metrics[0], 1, tuple(metrics[1:]), bounded).start({}, 0, Resources())
        try:
            return run.epoch()
        finally:
            run.close()

    return call


def test_a_function_reports_a_mapping_and_further_metrics(report):
    assert report('{"accuracy": 0.5, "latency": 3}') == {"accuracy": 0.5, "latency": 3.0}
    assert report('{"latency": 3, "accuracy": 0.5, "norm": 1}, loss=2') == {
        "latency": 3.0, "accuracy": 0.5, "norm": 1.0, "loss": 2.0,
    }  # fmt: skip


def test_what_a_constraint_bounds_is_in_the_mapping_or_beside_it(report):
    assert report('{"accuracy": 1, "latency": 2, "size": 3}', bounded=("size",))["size"] == 3.0
    assert report('{"accuracy": 1, "latency": 2}, size=3', bounded=("size",))["size"] == 3.0
    assert report("0.5, size=3", metrics=("accuracy",), bounded=("size",)) == {"accuracy": 0.5, "size": 3.0}
    assert report("0.5", metrics=("accuracy",), bounded=("accuracy",)) == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0.5", 'TypeError: trial.report: 0.5 is not a mapping; the study optimizes accuracy and latency: call trial.report(epoch, {"accuracy": ..., "latency": ...})'),
        ('{"accuracy": 0.5}', 'ValueError: trial.report: \'latency\' is missing; the study optimizes accuracy and latency: call trial.report(epoch, {"accuracy": ..., "latency": ...})'),
        ('{"accuracy": 0.5}, latency=3', "ValueError: trial.report: 'latency' is missing"),
        ('{"accuracy": 0.5, "latency": 3}, latency=3', "ValueError: trial.report: 'latency' is reported twice; pass it in the mapping only"),
        ('{"accuracy": 0.5, "latency": "x"}', "TypeError: trial.report: latency is 'x', which is not a number"),
        ('{"accuracy": 0.5, "latency": 1, 3: 1}', "ValueError: trial.report: 3 cannot be the name of a metric"),
        ('{"accuracy": 0.5, "latency": 1}', "ValueError: trial.report: 'size' is missing, which the study's constraints bound; report it as a further metric: trial.report(epoch, value, size=...)"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_named(report, line, expected):
    with pytest.raises(FunctionError) as raised:
        report(line, bounded=("size",) if "size" in expected else ())
    assert expected in str(raised.value)


def test_with_one_metric_a_mapping_is_no_number(report):
    with pytest.raises(FunctionError, match="which is not a number"):
        report('{"accuracy": 0.5}', metrics=("accuracy",))


def spec_of(objective, constraints="{}"):
    return parse_spec(f"name: x\nobjective: {objective}\nspace: {{lr: [0.1]}}\nconstraints: {constraints}\n")


def test_the_specification_tells_what_a_function_reports():
    spec = spec_of("{python: '/a/b.py:c', metrics: [good, {name: cost, mode: min}]}", "{size: {max: 1}}")
    assert build(spec, Path()).wanted.metrics == ("good", "cost")
    assert build(spec, Path()).wanted.bounded == ("size",)


def test_the_formula_measures_what_is_asked_for():
    params = {"lr": 0.1, "width": 8, "depth": 2, "batch_size": 64}
    plain = build(spec_of("{dataset: synthetic}"), Path()).start(params, 0, Resources()).epoch()
    assert not {"parameters", "memory", "epoch_seconds"} & plain.keys()
    asked = spec_of("{dataset: synthetic, metrics: [val_accuracy, parameters]}", "{memory: {max: 1}}")
    epoch = build(asked, Path()).start(params, 0, Resources()).epoch()
    assert epoch["parameters"] == 2 * (9 * 64 + 16)
    assert epoch["memory"] > 8
    assert "epoch_seconds" not in epoch
