"""Mixed conditional spaces of 28 to 38 knobs: the surrogates of YAHPO Gym (Pfisterer et al. 2022) of three scenarios.

A task is named by its scenario and its OpenML data set, as `rbv2_super:1501`. Its space is a choice of a learner, each
with knobs of its own, of which about seven exist at a time. The metric is accuracy, 1 - mmce. The fidelity is the
fraction of the training data: "epoch" e of E is a model of its own on e/E of the data, not training that goes on, and
its seconds are those of one fit. The workers' times come from them; a search is measured by epochs only.

Needs onnxruntime, and the folders rbv2_super, iaml_super and fair_super, each with model.onnx, encoding.json and
config_space.json, in the folder that DIALIN_CONDITIONAL names (else ../shared/data/conditional beside the project).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dialin.specification.domains import Scalar
from tests.benchmarks.curves.base import Params

TASKS = (
    "rbv2_super:3",
    "rbv2_super:1501",
    "rbv2_super:40670",
    "rbv2_super:41143",
    "iaml_super:1489",
    "iaml_super:41146",
    "fair_super:31",
    "fair_super:317599",
)
"""To develop on."""

JUDGING = (
    "rbv2_super:32",
    "rbv2_super:458",
    "rbv2_super:1479",
    "rbv2_super:40496",
    "iaml_super:1067",
    "iaml_super:40981",
    "fair_super:14965",
    "fair_super:190424",
)
"""To judge by, for a measurement that nothing is changed after: of rbv2_super the tasks that CARP-S (Benjamins et al.
2025) tests multi-fidelity methods on, of the other two scenarios all that are not for development."""

OBJECTIVE = "{python: /conditional.py:train, metric: accuracy}"
MARKS = (3, 6, 10, 20)
CLOCKS = ("epochs",)
WORST = 0.5  # regret 1 is the median random configuration
CLIMBS, MOVED = 25, (0.5, 0.2, 0.05)
PRIORS = ("good", "bad", "none")
RANDOM_CONFIGURATIONS = 800

_XGBOOST = ("nrounds", "eta", "gamma", "lambda", "alpha", "subsample", "max_depth", "min_child_weight")
_XGBOOST += ("colsample_bytree", "colsample_bylevel")
_DART = ("rate_drop", "skip_drop")
_FOREST = ("num.trees", "sample.fraction", "mtry.ratio", "min.node.size", "num.random.splits")
_TREE = ("cp", "maxdepth", "minbucket", "minsplit")
_MISSING = "#na#"
_FIDELITY = "trainsize"


def _of(learner: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{learner}.{name}" for name in names)


@dataclass(frozen=True)
class Scenario:
    """What a surrogate is asked, in the order of its inputs and outputs, which its files do not state."""

    epochs: int
    numbers: tuple[str, ...]
    choices: tuple[str, ...]
    seconds: int
    """The index of the training time among the outputs; the error rate has index 0."""
    fixed: Mapping[str, float] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Names of the space that the surrogate calls by another name."""


SCENARIOS = {
    "rbv2_super": Scenario(
        27,
        _of("svm", ("cost", "gamma", "tolerance", "degree"))
        + _of("glmnet", ("alpha", "s"))
        + _of("rpart", _TREE)
        + _of("ranger", ("num.trees", "sample.fraction", "mtry.power", "min.node.size", "num.random.splits"))
        + _of("aknn", ("k", "M", "ef", "ef_construction"))
        + _of("xgboost", _XGBOOST + _DART)
        + (_FIDELITY, "repl"),
        (
            "task_id",
            "learner",
            "svm.kernel",
            "ranger.respect.unordered.factors",
            "ranger.splitrule",
            "aknn.distance",
            "xgboost.booster",
            "num.impute.selected.cpo",
        ),
        seconds=4,
        fixed={"repl": 10},
        renamed={"learner_id": "learner"},
    ),
    "iaml_super": Scenario(
        27,
        _of("ranger", _FOREST)
        + _of("rpart", _TREE)
        + _of("glmnet", ("alpha", "s"))
        + _of("xgboost", _XGBOOST + _DART)
        + (_FIDELITY,),
        (
            "task_id",
            "learner",
            "ranger.replace",
            "ranger.respect.unordered.factors",
            "ranger.splitrule",
            "xgboost.booster",
        ),
        seconds=7,
    ),
    "fair_super": Scenario(
        9,
        _of("fgrrm", ("lambda", "unfairness"))
        + _of("rpart", _TREE)
        + _of("ranger", ("min.node.size", "mtry.ratio", "num.random.splits", "num.trees", "sample.fraction"))
        + _of("xgboost", _XGBOOST)
        + ("reweighing_os_alpha", "EoD_alpha", _FIDELITY),
        (
            "task_id",
            "fgrrm.definition",
            "ranger.replace",
            "ranger.respect.unordered.factors",
            "ranger.splitrule",
            "xgboost.booster",
            "learner",
            "pre_post",
        ),
        seconds=8,
    ),
}


def folder() -> Path:
    return Path(os.environ.get("DIALIN_CONDITIONAL") or Path(__file__).parents[4] / "shared" / "data" / "conditional")


def epochs(task: str) -> int:
    return SCENARIOS[_split(task)[0]].epochs


def space(task: str) -> str:
    """The space in dialin's language. A knob's name is the scenario's with underscores for dots."""
    return "".join(f"\n  {_short(name)}: {{{text}}}" for name, text in _knobs(_split(task)[0]).items()) + "\n"


def load(task: str) -> Conditional:
    return Conditional(task)


def sisters(task: str) -> list[str]:
    """The other data sets of a task's scenario."""
    scenario, own = _split(task)
    return [f"{scenario}:{other}" for other in _codes(scenario) if other != own]


def centres(task: str, kind: str, seed: int, configurations: Sequence[Params]) -> dict[str, Scalar]:
    """The values about which a search of this task is told to expect good configurations.

    They come from random configurations and how those rank on the *other* data sets of the scenario, on all training
    data. A catalogue has a default for every knob, those of learners that its first choice does not have too. Hence
    with "good", each knob has its value in the configuration with the best mean rank among those that have the knob:
    the learner that is best on the whole with its knobs, and for each other learner the knobs of its best
    configuration. "bad" is the same with the lowest quarter, in random order, in place of the best.
    """
    inputs = Conditional(task).inputs(configurations, np.ones(1))
    ranks = mean_ranks([Conditional(other).finals(*inputs) for other in sisters(task)])
    order = np.argsort(-ranks)
    if kind == "bad":
        quarter = np.random.default_rng(seed).permutation(order[len(order) * 3 // 4 :])
        order = np.concatenate([quarter, order[: len(order) * 3 // 4][::-1]])
    return first_values([configurations[index] for index in order])


def mean_ranks(values: Sequence[np.ndarray]) -> np.ndarray:
    """(configurations,) The mean over data sets of the rank of each configuration; larger is better, ties share."""
    from scipy.stats import rankdata

    return np.mean([rankdata(each) for each in values], axis=0)


def first_values(configurations: Sequence[Params]) -> dict[str, Any]:
    """Of each knob its value in the first configuration that has it."""
    values: dict[str, Any] = {}
    for params in configurations:
        values |= {name: value for name, value in params.items() if name not in values}
    return values


class Conditional:
    """One data set: accuracy from 0 to 1, and seconds made to rise."""

    def __init__(self, task: str) -> None:
        name, data_set = _split(task)
        self._about, self._encoding = SCENARIOS[name], _encoding(name)
        if data_set not in _codes(name):
            raise SystemExit(f"{name} has no data set {data_set!r}; it has {', '.join(_codes(name))}")
        self._session, self._code = _session(name), self._encoding["task_id"][data_set]

    def curves(self, configurations: Sequence[Params]) -> tuple[np.ndarray, np.ndarray]:
        steps = self._about.epochs
        output = self.outputs(configurations, np.arange(1, steps + 1) / steps)
        seconds = np.maximum.accumulate(np.maximum(output[:, :, self._about.seconds], 1e-3), axis=1)
        return 1 - output[:, :, 0], seconds

    def outputs(self, configurations: Sequence[Params], fractions: np.ndarray) -> np.ndarray:
        """(n, fractions, outputs) All that the surrogate says with these fractions of the training data."""
        found = self._outputs(*self.inputs(configurations, fractions))
        return found.reshape(len(configurations), len(fractions), -1).astype(float)

    def finals(self, choices: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """(n,) The accuracy of what `inputs` made."""
        return 1 - self._outputs(choices, numbers)[:, 0].astype(float)

    def inputs(self, configurations: Sequence[Params], fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n * fractions, choices), (n * fractions, numbers) Inputs of the surrogate, for any data set of the scenario:
        each configuration with each of these fractions of the training data."""
        about, count = self._about, len(fractions)
        codes = [(_short(name), self._encoding[name]) for name in about.choices]
        choices = [[code[params.get(name, _MISSING)] for name, code in codes] for params in configurations]
        names = [_short(name) for name in about.numbers]
        numbers = [[params.get(name, 0.0) for name in names] for params in configurations]
        x_cat = np.repeat(np.array(choices, np.int32), count, axis=0)
        x_cont = np.repeat(np.array(numbers, np.float32), count, axis=0)
        for name, value in about.fixed.items():
            x_cont[:, about.numbers.index(name)] = value
        x_cont[:, about.numbers.index(_FIDELITY)] = np.tile(fractions, len(configurations))
        return x_cat, x_cont

    def _outputs(self, choices: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        choices[:, self._about.choices.index("task_id")] = self._code
        return self._session.run(None, {"x_cat": choices, "x_cont": numbers})[0]


def _split(task: str) -> tuple[str, str]:
    scenario, _, data_set = task.partition(":")
    if scenario not in SCENARIOS:
        raise SystemExit(f"no scenario {scenario!r}; a task is SCENARIO:DATA_SET of {', '.join(SCENARIOS)}")
    return scenario, data_set


def _short(name: str) -> str:
    return name.replace(".", "_")


@cache
def _read(scenario: str, file: str) -> Any:
    path = folder() / scenario / file
    if not path.is_file():
        raise SystemExit(f"no {scenario}/{file} in {folder()}; name the folder with DIALIN_CONDITIONAL")
    return json.loads(path.read_text())


def _encoding(scenario: str) -> Mapping[str, Mapping[Any, int]]:
    """Of each choice the codes of its values."""
    return _read(scenario, "encoding.json")


def _codes(scenario: str) -> list[str]:
    """The names of the data sets."""
    return [name for name in _encoding(scenario)["task_id"] if name != _MISSING]


@cache
def _session(scenario: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = folder() / scenario / "model.onnx"
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


@cache
def _knobs(scenario: str) -> dict[str, str]:
    """The text of each knob in dialin's language, conditions included."""
    about, raw = SCENARIOS[scenario], _read(scenario, "config_space.json")
    conditions: dict[str, list[str]] = {}
    for condition in raw["conditions"]:
        parts = [_condition(part, about) for part in condition.get("conditions", [condition])]
        conditions[condition["child"]] = parts
    texts = {}
    for knob in raw["hyperparameters"]:
        if knob["name"] not in {_FIDELITY, "task_id", *about.fixed}:
            when = conditions.get(knob["name"])
            text = _domain(knob) + (f", when: {{{', '.join(when)}}}" if when else "")
            texts[about.renamed.get(knob["name"], knob["name"])] = text
    return texts


def _condition(part: Mapping[str, Any], about: Scenario) -> str:
    parent, allowed = part["parent"], part["values"] if part["type"] == "IN" else [part["value"]]
    return f"{_short(about.renamed.get(parent, parent))}: {json.dumps(allowed)}"


def _domain(knob: Mapping[str, Any]) -> str:
    if knob["type"] == "categorical":
        return f"choices: {json.dumps(knob['choices'])}"  # quoted: "TRUE" is a word here
    log = ", log: true" if knob["log"] and knob["lower"] > 0 else ""
    kind = int if knob["type"] == "uniform_int" else float
    return f"min: {kind(knob['lower'])!r}, max: {kind(knob['upper'])!r}{log}"
