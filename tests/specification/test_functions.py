"""A specification of a person's own function: what is found without running it, and where what is wrong is said."""

from __future__ import annotations

import pytest

from dialin.errors import SpecError
from dialin.specification import active_params, lint, load_spec, parse_spec, searched, spec_from_data, to_data, to_yaml
from dialin.specification.domains import Choice, Fixed, FloatRange, IntRange
from dialin.specification.study_spec import PythonSpec

TRAIN = "def train(config, trial): ...\n"


@pytest.fixture
def write(tmp_path):
    """Writes train.py and a specification of it; the path of the latter."""

    def write(python="train.py:train", space="{lr: 0.1}", source=TRAIN, more=""):
        (tmp_path / "train.py").write_text(source)
        file = tmp_path / "mine.yaml"
        file.write_text(f"name: mine\nobjective:\n  python: '{python}'\n{more}space: {space}\n")
        return file

    return write


def message(file, *overrides):
    with pytest.raises(SpecError) as caught:
        load_spec(file, overrides)
    return str(caught.value).removeprefix(f"{file}: ").replace(f"{file.parent}/", "")


def test_it_reads_back_the_same_and_names_the_whole_path(write, tmp_path):
    spec = load_spec(write(more="  metric: val_loss\n"))
    assert spec.objective == PythonSpec(python=f"{tmp_path}/train.py:train", metric="val_loss", mode="min")
    assert (spec.objective.file, spec.objective.subject) == (tmp_path / "train.py", "train.py:train")
    (tmp_path / "train.py").unlink()  # a study can be looked at when its file is long gone
    assert parse_spec(to_yaml(spec)) == spec == spec_from_data(to_data(spec))


@pytest.mark.parametrize(
    ("more", "metric", "mode"),
    [
        ("", "value", "max"),
        ("  metric: loss\n", "loss", "min"),
        ("  metric: f1\n", "f1", "max"),
        ("  metric: error\n  mode: min\n", "error", "min"),
    ],
)
def test_the_metric_and_its_mode(write, more, metric, mode):
    objective = load_spec(write(more=more)).objective
    assert (objective.metric, objective.mode) == (metric, mode)


@pytest.mark.parametrize(
    ("python", "source", "expected"),
    [
        ("train.py", TRAIN, "line 3: objective.python: 'train.py' is not of the form FILE.py:FUNCTION, as in train.py:train"),
        ("train:train", TRAIN, "line 3: objective.python: 'train:train' is not of the form FILE.py:FUNCTION, as in train.py:train"),
        ("trian.py:train", TRAIN, "line 3: objective.python: trian.py: there is no such file"),
        ("train.py:trian", TRAIN, "line 3: objective.python: no function 'trian' in train.py; did you mean 'train'?"),
        ("train.py:x", "import os", "line 3: objective.python: no function 'x' in train.py; the file has no function"),
        ("train.py:train", "def train(:\n", "line 3: objective.python: train.py, line 1: invalid syntax"),
        ("train.py:train", "x = 1\0", "line 3: objective.python: train.py is not Python: source code string cannot contain null bytes"),
        ("train.py:train", "def train(config): ...", "line 3: objective.python: train(config) in train.py, line 1; it is called as train(config, trial)"),
        ("train.py:train", "def train(a, b, c): ...", "line 3: objective.python: train(a, b, c) in train.py, line 1; it is called as train(config, trial)"),
        ("train.py:train", "def train(a, b, *, c): ...", "line 3: objective.python: train(a, b, *, c) in train.py, line 1; it is called as train(config, trial)"),
        ("train.py:train", "async def train(a, b): ...", "line 3: objective.python: 'train' in train.py, line 1, is async; it must be a plain function"),
        ("train.py:train", "class train: ...", "line 3: objective.python: 'train' in train.py, line 1, is a class; it must be a plain function"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_function_is_said_with_its_line(write, python, source, expected):
    assert message(write(python, source=source)) == expected


@pytest.mark.parametrize(
    "source",
    [
        "def train(config, trial, more=1, *, other=2): ...",
        "def train(*everything): ...",
        "from elsewhere import fit as train",
        "train = make()",
        "train: object = make()",
        "try:\n    import torch\nexcept ImportError:\n    def train(config, trial): ...",
        "if True:\n    def train(config, trial): ...\nelse:\n    train = None",
        "def other():\n    def train(x): ...\ndef train(config, trial): raise RuntimeError('never run')",
    ],
)
def test_functions_that_are_found(write, source):
    load_spec(write(source=source))


def test_without_a_folder_the_path_is_whole_and_nothing_is_looked_for():
    text = "name: x\nobjective: {python: %s}\nspace: {lr: 1}\n"
    assert parse_spec(text % "/nowhere/train.py:train").objective.python == "/nowhere/train.py:train"
    with pytest.raises(SpecError, match="'train.py' is relative, and this specification lies in no folder"):
        parse_spec(text % "train.py:train")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("  dataset: digits\n", "line 4: objective.dataset: a function of your own brings its own data; name either dataset or python"),
        ("  samples: 100\n", "line 4: objective.samples: unknown key 'samples'; allowed: metric, metrics, mode, python"),
        ("  metric: a b\n", "line 4: objective.metric: 'a b'; allowed: 1 to 64 letters, digits and _, no digit first"),
        ("  mode: most\n", "line 4: objective.mode: 'most'; allowed: 'max', 'min'"),
    ],
)  # fmt: skip
def test_other_keys_of_the_objective(write, more, expected):
    assert message(write(more=more)) == expected


@pytest.mark.parametrize(
    ("domain", "read"),
    [
        ("0.1", Fixed(0.1)),
        ("3", Fixed(3)),
        ("true", Fixed(True)),
        ("[adam, 1, 0.5, false]", Choice(("adam", 1, 0.5, False))),
        ("{min: 1, max: 8}", IntRange(1, 8)),
        ("{min: 1, max: 8, log: true}", IntRange(1, 8, log=True)),
        ("{min: 1, max: 9, step: 4}", IntRange(1, 9, step=4)),
        ("{min: 0, max: 1.0}", FloatRange(0.0, 1.0)),
        ("{min: 0, max: 1, step: 0.25}", FloatRange(0.0, 1.0, step=0.25)),
        ("{min: 1e-4, max: 1, log: true}", FloatRange(1e-4, 1.0, log=True)),
    ],
)
def test_knobs_of_any_name_take_any_values(write, domain, read):
    spec = load_spec(write(space=f"{{anything-at_all: {domain}}}"))
    assert str(spec.space["anything-at_all"]) == str(read)  # 1 and 1.0 are equal, and not the same
    assert str(parse_spec(to_yaml(spec)).space) == str(spec.space)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("{a b: 1}", "space.a b: 'a b' is not a name for a knob; allowed: 1 to 64 letters, digits, _ and -, no digit or - first"),
        ("{a: [1, null]}", "space.a.1: null is not a value; allowed: numbers, text, true and false"),
        ("{a: {min: 2, max: 1}}", "space.a: min 2 is not below max 1"),
        ("{a: {min: x, max: 1}}", "space.a.min: 'x' is not a number"),
        ("{a: {min: 0, max: 1, log: true}}", "space.a.min: a log range cannot touch 0, and min is 0"),
        ("{a: .inf}", "space.a: inf is not finite"),
        ("{lr: {range_test: }}", "space.lr.range_test: a function of your own has no range test; write the range, as in {min: 1e-4, max: 1.0, log: true}"),
        ("{a: 1, b: {value: 2, when: {aa: 1}}}", "space.b.when.aa: the condition names 'aa', which is not a knob of this space; did you mean 'a'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_knobs(write, space, expected):
    assert message(write(space=space)) == f"line 4: {expected}"


def test_a_configuration_has_the_spaces_knobs_in_its_order_and_no_others(write):
    space = "{width: {min: 1, max: 8}, kind: [a, b], deep: {value: 2, when: {kind: b}}, lr: 0.1, momentum: 0.5}"
    spec = load_spec(write(space=space))
    assert searched(spec) == ["width", "kind"]
    assert list(active_params(spec, {"kind": "a", "width": 3}).items()) == [
        ("width", 3), ("kind", "a"), ("lr", 0.1), ("momentum", 0.5),
    ]  # fmt: skip
    assert active_params(spec, {"kind": "b", "width": 3})["deep"] == 2
    assert [warning.path for warning in lint(spec)] == ["budget.trials"]  # 30 of 16 configurations


def test_overrides_know_its_knobs(write):
    file = write(space="{width: 4}")
    assert load_spec(file, ["width=[1, 2]"]).space["width"] == Choice((1, 2))
    assert "unknown key 'widht'; did you mean 'width'?" in message(file, "widht=3")
    assert load_spec(file, ["objective.python=train.py:train"]).objective.function == "train"
