"""Small specifications and plans for tests."""

from __future__ import annotations

from dialin.planning.plan import ClusterShape, Plan, plan_study
from dialin.specification import parse_spec
from dialin.specification.study_spec import StudySpec

SPACE = """
  optimizer: [sgd, adam]
  lr: {min: 1e-4, max: 1, log: true}
  momentum: {min: 0.5, max: 0.99, when: {optimizer: sgd}}
  batch_size: {min: 16, max: 128, log: true}
"""


def make_spec(*overrides: str, space: str = SPACE, dataset: str = "synthetic") -> StudySpec:
    """A study of 12 trials of 9 epochs over the closed form, unless overridden as on the command line."""
    text = f"name: small\nobjective: {{dataset: {dataset}}}\nspace:{space}\nbudget: {{trials: 12, epochs: 9}}\n"
    return parse_spec(text, overrides=overrides)


def make_plan(*overrides: str, space: str = SPACE) -> Plan:
    return plan_study(make_spec(*overrides, space=space), ClusterShape(cpus=2))
